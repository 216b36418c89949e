// Declarations of the DRP-AI runtime wrapper, written from its documentation; see NvInfer.h.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

enum class InOutDataType { FLOAT32, FLOAT16, INT32, INT64, OTHER };

class MeraDrpRuntimeWrapper {
 public:
  bool LoadModel(const std::string& folder, std::uint64_t start_address);
  int GetNumInput(const std::string& folder);
  int GetNumOutput();
  InOutDataType GetInputDataType(int index);
  void SetInput(int index, const float* data);
  void SetInput(int index, const std::uint16_t* data);
  void Run();
  void Run(int frequency);
  std::tuple<InOutDataType, void*, std::int64_t> GetOutput(int index);
};
