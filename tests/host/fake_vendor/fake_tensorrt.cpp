// CUDA and TensorRT. A stream does nothing before it is synchronized: who reads a result earlier, or
// frees memory that a copy still needs, reads or frees too early here as well.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <new>

#include "NvInfer.h"
#include "fake.hpp"

namespace {

std::vector<std::function<void()>> queue;         // of the stream
std::map<const void*, std::size_t> allocated;     // device memory and its size

}  // namespace

cudaError_t cudaMalloc(void** data, std::size_t size) {
  const Outside mark;
  if (!works("cudaMalloc", std::to_string(size))) return cudaErrorMemoryAllocation;
  *data = ::operator new(size);
  allocated[*data] = size;
  ++alive();
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  const Outside mark;
  if (data != nullptr) {
    if (allocated.erase(data) == 0) std::abort();  // freed twice, or never allocated
    --alive();
  }
  ::operator delete(data);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t) {
  const Outside mark;
  const bool up = kind == cudaMemcpyHostToDevice;
  const auto device = allocated.find(up ? to : from);
  if (device == allocated.end() || device->second < size) std::abort();
  if (!works(up ? "upload" : "download", std::to_string(size))) return cudaErrorMemoryAllocation;
  queue.emplace_back([=] { std::memcpy(to, from, size); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  const Outside mark;
  *stream = reinterpret_cast<cudaStream_t>(1);
  return works("cudaStreamCreate") ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  queue.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  const Outside mark;
  if (!works("cudaStreamSynchronize")) return cudaErrorMemoryAllocation;
  for (const auto& step : queue) step();
  queue.clear();
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }

namespace nvinfer1 {

namespace {

struct Bound : FakeTensor {
  std::vector<std::int64_t> now;  // dims of this run
  void* address = nullptr;
};
// One engine at a time is enough for the tests.
std::vector<Bound> tensors;
ILogger* logger = nullptr;

Bound& tensor(const char* name) {
  for (Bound& t : tensors) {
    if (t.name == name) return t;
  }
  std::abort();
}

Dims as_dims(const std::vector<std::int64_t>& from) {
  Dims dims{};
  for (const std::int64_t d : from) dims.d[dims.nbDims++] = d;
  return dims;
}

bool shapes_known() {
  for (const Bound& t : tensors) {
    if (t.input && t.now.empty()) return false;
  }
  return true;
}

/// A free first dimension of an output is that of x; any other depends on the data.
std::vector<std::int64_t> result_dims(const Bound& t) {
  std::vector<std::int64_t> dims = t.dims;
  if (!dims.empty() && dims[0] == -1 && shapes_known()) dims[0] = tensor("x").now[0];
  return dims;
}

std::size_t bytes_of(const Bound& t, const std::vector<std::int64_t>& dims) {
  return static_cast<std::size_t>(count_of(dims)) * (t.type == 1 ? 2 : 4);
}

void compute() {
  std::vector<Given> inputs;
  for (const Bound& t : tensors) {
    if (!t.input) continue;
    inputs.push_back({t.name, {}});
    for (std::int64_t i = 0; i < count_of(t.now); ++i) {
      inputs.back().numbers.push_back(read_number(t.address, t.type == 1, i));
    }
  }
  for (const Bound& t : tensors) {
    if (t.input) continue;
    for (std::int64_t i = 0; i < count_of(result_dims(t)); ++i) {
      write_number(t.address, t.type == 1, i, answer(t.name, i, inputs));
    }
  }
}

}  // namespace

IRuntime* createInferRuntime(ILogger& used) noexcept {
  const Outside mark;
  logger = &used;
  return works("createInferRuntime") ? new IRuntime() : nullptr;
}

ICudaEngine* IRuntime::deserializeCudaEngine(const void* blob, std::size_t size) noexcept {
  const Outside mark;
  std::vector<FakeTensor> described;
  tensors.clear();
  if (!parse_model(std::string(static_cast<const char*>(blob), size), described)) {
    logger->log(ILogger::Severity::kERROR, "magic tag does not match");
    return nullptr;
  }
  for (const FakeTensor& t : described) tensors.push_back({t, {}, nullptr});
  return works("deserializeCudaEngine") ? new ICudaEngine() : nullptr;
}

IExecutionContext* ICudaEngine::createExecutionContext() noexcept {
  const Outside mark;
  return works("createExecutionContext") ? new IExecutionContext() : nullptr;
}
std::int32_t ICudaEngine::getNbIOTensors() const noexcept {
  return static_cast<std::int32_t>(tensors.size());
}
const char* ICudaEngine::getIOTensorName(std::int32_t index) const noexcept {
  return tensors[static_cast<std::size_t>(index)].name.c_str();
}
TensorIOMode ICudaEngine::getTensorIOMode(const char* name) const noexcept {
  return tensor(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
}
Dims ICudaEngine::getTensorShape(const char* name) const noexcept {
  return as_dims(tensor(name).dims);
}
DataType ICudaEngine::getTensorDataType(const char* name) const noexcept {
  return static_cast<DataType>(tensor(name).type);
}

bool IExecutionContext::setInputShape(const char* name, const Dims& dims) noexcept {
  const Outside mark;
  const std::vector<std::int64_t> wanted(dims.d, dims.d + dims.nbDims);
  if (!works("setInputShape", std::string(name) + " " + text_of(wanted))) return false;
  Bound& t = tensor(name);
  bool fits = t.input && wanted.size() == t.dims.size();
  for (std::size_t i = 0; fits && i < wanted.size(); ++i) {
    fits = t.dims[i] == -1 || t.dims[i] == wanted[i];
  }
  if (fits) t.now = wanted;
  return fits;
}
Dims IExecutionContext::getTensorShape(const char* name) const noexcept {
  const Outside mark;
  const std::vector<std::int64_t> found = result_dims(tensor(name));
  Dims dims = as_dims(found);
  if (!works("getTensorShape", std::string(name) + " " + text_of(found))) dims.nbDims = -1;
  return dims;
}
bool IExecutionContext::setTensorAddress(const char* name, void* data) noexcept {
  const Outside mark;
  tensor(name).address = data;
  return works("setTensorAddress", name);
}

/// Refuses what the documentation forbids: a tensor without shape or address, memory that is too
/// small or shared.
bool IExecutionContext::enqueueV3(cudaStream_t) noexcept {
  const Outside mark;
  std::string wrong;
  for (const Bound& a : tensors) {
    const std::vector<std::int64_t> dims = a.input ? a.now : result_dims(a);
    const auto memory = allocated.find(a.address);
    if (a.input && a.now.empty()) {
      wrong = "no shape for " + a.name;
    } else if (memory == allocated.end()) {
      wrong = "no address for " + a.name;
    } else if (memory->second < bytes_of(a, dims)) {
      wrong = "too little memory for " + a.name;
    }
    for (const Bound& b : tensors) {
      const bool shared = &a != &b && a.address != nullptr && a.address == b.address;
      if (shared) wrong = "shared memory of " + a.name + ", " + b.name;
    }
  }
  if (!wrong.empty()) logger->log(ILogger::Severity::kERROR, wrong.c_str());
  if (!works("enqueueV3") || !wrong.empty()) return false;
  queue.emplace_back(compute);
  return true;
}

}  // namespace nvinfer1
