// Device parts: one small interface (Stage), one file per runtime behind it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "bundle_info.hpp"

namespace adc {

/// What an engine may use to open its part.
struct EngineContext {
  std::string folder;    // of the bundle
  const BundleInfo* info = nullptr;
  const PartInfo* part = nullptr;
  std::map<std::string, std::string> options;  // --device-option NAME=VALUE
  std::size_t sample = 0;                      // golden sample, for recorded engines
};

/// The path of the part's file for `use`; fails when the bundle has none.
[[nodiscard]] std::string part_file(const EngineContext& context, const std::string& use);
[[nodiscard]] bool has_file(const EngineContext& context, const std::string& use);
[[nodiscard]] std::string option(const EngineContext& context, const std::string& name,
                                 const std::string& otherwise);

/// Ports of the part, in the order of its record.
[[nodiscard]] std::vector<Port> ports_of(const BundleInfo& info, const std::vector<int>& values);

/// Opens a device part. `kind`: recorded, tensorrt, drpai, onnxruntime, or auto (by the part's
/// executor). Fails with a sentence when the program was built without that runtime.
[[nodiscard]] std::unique_ptr<Stage> open_engine(const std::string& kind,
                                                 const EngineContext& context);

[[nodiscard]] std::unique_ptr<Stage> open_recorded(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_tensorrt(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_drpai(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_onnxruntime(const EngineContext& context);

/// Runs `inner` in pieces of its fixed row counts, padding with zeros; no rows give no rows
/// without a call.
[[nodiscard]] std::unique_ptr<Stage> by_rows(std::unique_ptr<Stage> inner, const PartInfo& part);

}  // namespace adc
