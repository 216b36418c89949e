// The DRP-AI runtime and its driver. A model is the file "model" in the folder that is loaded, its
// types those of InOutDataType; without one it takes and gives six numbers, as float16 what it gives.
// Every answer of GetOutput lies in the same memory. /dev/drpai0 stands at 0x240000000.
#include <linux/drpai.h>

#include <cstdarg>
#include <cstring>
#include <fstream>
#include <sstream>

#include "MeraDrpRuntimeWrapper.h"
#include "fake.hpp"

namespace {

std::vector<FakeTensor> described;
std::vector<Given> given;
std::vector<float> answered;  // storage of whatever GetOutput gave last
int device = -1;

std::vector<FakeTensor> side(bool input) {
  std::vector<FakeTensor> found;
  for (const FakeTensor& t : described) {
    if (t.input == input) found.push_back(t);
  }
  return found;
}

void take(int index, const void* data, bool half) {
  const FakeTensor t = side(true).at(static_cast<std::size_t>(index));
  works(half ? "SetInputHalf" : "SetInput", std::to_string(index));
  std::vector<float>& numbers = given.at(static_cast<std::size_t>(index)).numbers;
  numbers.clear();
  for (std::int64_t i = 0; i < count_of(t.dims); ++i) {
    numbers.push_back(read_number(data, half, i));
  }
}

}  // namespace

extern "C" {

int __real_open(const char* path, int flags, ...);  // NOLINT: the linker's names
int __real_close(int descriptor);

int __wrap_open(const char* path, int flags, ...) {  // NOLINT
  if (std::strcmp(path, "/dev/drpai0") != 0) return __real_open(path, flags);
  const Outside mark;
  if (!works("open", path)) {
    errno = ENOENT;
    return -1;
  }
  device = __real_open("/dev/null", flags);
  ++alive();
  return device;
}

int __wrap_close(int descriptor) {  // NOLINT
  if (descriptor == device) --alive();
  return __real_close(descriptor);
}

int __wrap_ioctl(int descriptor, unsigned long request, ...) {  // NOLINT
  const Outside mark;
  std::va_list arguments;
  va_start(arguments, request);
  auto* area = va_arg(arguments, drpai_data_t*);
  va_end(arguments);
  if (!works("ioctl") || descriptor != device || request != DRPAI_GET_DRPAI_AREA) {
    errno = EINVAL;
    return -1;
  }
  area->address = 0x240000000;
  area->size = 0x20000000;
  return 0;
}

}  // extern "C"

bool MeraDrpRuntimeWrapper::LoadModel(const std::string& folder, std::uint64_t address) {
  const Outside mark;
  std::ifstream file(folder + "/model");
  std::stringstream text;
  text << file.rdbuf();
  const bool readable = parse_model(file ? text.str() : "in x 0 6\nout y 1 6\n", described);
  given.clear();
  for (const FakeTensor& t : side(true)) given.push_back({t.name, {}});
  const std::size_t slash = folder.rfind("/parts/");
  std::ostringstream detail;
  detail << folder.substr(slash == std::string::npos ? 0 : slash) << " 0x" << std::hex << address;
  return works("LoadModel", detail.str()) && readable;
}
int MeraDrpRuntimeWrapper::GetNumInput(const std::string&) {
  const Outside mark;
  return works("GetNumInput") ? static_cast<int>(side(true).size()) : 9;
}
int MeraDrpRuntimeWrapper::GetNumOutput() {
  const Outside mark;
  return works("GetNumOutput") ? static_cast<int>(side(false).size()) : 9;
}
InOutDataType MeraDrpRuntimeWrapper::GetInputDataType(int index) {
  const Outside mark;
  const FakeTensor t = side(true).at(static_cast<std::size_t>(index));
  return works("GetInputDataType") ? static_cast<InOutDataType>(t.type) : InOutDataType::OTHER;
}
void MeraDrpRuntimeWrapper::SetInput(int index, const float* data) {
  const Outside mark;
  take(index, data, false);
}
void MeraDrpRuntimeWrapper::SetInput(int index, const std::uint16_t* data) {
  const Outside mark;
  take(index, data, true);
}
void MeraDrpRuntimeWrapper::Run() {
  const Outside mark;
  works("Run");
}
void MeraDrpRuntimeWrapper::Run(int frequency) {
  const Outside mark;
  works("Run", std::to_string(frequency));
}
std::tuple<InOutDataType, void*, std::int64_t> MeraDrpRuntimeWrapper::GetOutput(int index) {
  const Outside mark;
  const FakeTensor t = side(false).at(static_cast<std::size_t>(index));
  const std::int64_t count = count_of(t.dims);
  const bool ok = works("GetOutput", std::to_string(index));
  if (answered.size() < static_cast<std::size_t>(count)) answered.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    write_number(answered.data(), t.type == 1, i, answer(t.name, i, given));
  }
  return {static_cast<InOutDataType>(t.type), answered.data(), ok ? count : count - 1};
}
