// Fakes behind the declarations: every model computes y = 2 x. Each call is printed; the variable
// FAKE_FAIL names the call that fails.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "MeraDrpRuntimeWrapper.h"
#include "NvInfer.h"
#include "half.hpp"
#include "onnxruntime_c_api.h"

namespace {

bool works(const char* call, const std::string& detail = "") {
  const char* fail = std::getenv("FAKE_FAIL");
  const bool ok = fail == nullptr || std::strcmp(fail, call) != 0;
  std::printf("%s%s%s%s\n", call, detail.empty() ? "" : " ", detail.c_str(), ok ? "" : " FAILS");
  return ok;
}

int live_allocations = 0;

}  // namespace

int fake_live_allocations() { return live_allocations; }

// --- CUDA --------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** data, std::size_t size) {
  if (!works("cudaMalloc", std::to_string(size))) return cudaErrorMemoryAllocation;
  *data = ::operator new(size);
  ++live_allocations;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (data != nullptr) --live_allocations;
  ::operator delete(data);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t) {
  if (!works(kind == cudaMemcpyHostToDevice ? "upload" : "download", std::to_string(size))) {
    return cudaErrorMemoryAllocation;
  }
  std::memcpy(to, from, size);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = reinterpret_cast<cudaStream_t>(1);
  return works("cudaStreamCreate") ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return works("cudaStreamSynchronize") ? cudaSuccess : cudaErrorMemoryAllocation;
}
const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }

// --- TensorRT ----------------------------------------------------------------------------------

namespace nvinfer1 {

namespace {

struct Tensor {
  std::string name;
  bool input = false;
  int type = 0;
  Dims dims{};
  void* address = nullptr;
};
// One engine at a time is enough for the tests.
std::vector<Tensor> tensors;
ILogger* logger = nullptr;

Tensor& tensor(const char* name) {
  for (Tensor& t : tensors) {
    if (t.name == name) return t;
  }
  std::abort();
}

std::string text(const Dims& dims) {
  std::string out;
  for (int i = 0; i < dims.nbDims; ++i) out += (i ? "x" : "") + std::to_string(dims.d[i]);
  return out;
}

float read(const Tensor& t, std::int64_t i) {
  return t.type == 1 ? static_cast<float>(static_cast<adc::Half*>(t.address)[i])
                     : static_cast<float*>(t.address)[i];
}

}  // namespace

IRuntime* createInferRuntime(ILogger& used) noexcept {
  logger = &used;
  return works("createInferRuntime") ? new IRuntime() : nullptr;
}

/// A plan is text: per line "in|out NAME TYPE DIMS…".
ICudaEngine* IRuntime::deserializeCudaEngine(const void* blob, std::size_t size) noexcept {
  tensors.clear();
  std::istringstream plan(std::string(static_cast<const char*>(blob), size));
  std::string line;
  while (std::getline(plan, line)) {
    std::istringstream fields(line);
    std::string kind;
    Tensor t;
    fields >> kind >> t.name >> t.type;
    t.input = kind == "in";
    while (fields >> t.dims.d[t.dims.nbDims]) ++t.dims.nbDims;
    if (kind != "in" && kind != "out") {
      logger->log(ILogger::Severity::kERROR, "magic tag does not match");
      return nullptr;
    }
    tensors.push_back(t);
  }
  return works("deserializeCudaEngine") ? new ICudaEngine() : nullptr;
}

IExecutionContext* ICudaEngine::createExecutionContext() noexcept {
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
Dims ICudaEngine::getTensorShape(const char* name) const noexcept { return tensor(name).dims; }
DataType ICudaEngine::getTensorDataType(const char* name) const noexcept {
  return static_cast<DataType>(tensor(name).type);
}

bool IExecutionContext::setInputShape(const char* name, const Dims& dims) noexcept {
  if (!works("setInputShape", std::string(name) + " " + text(dims))) return false;
  tensor(name).dims = dims;
  return true;
}
Dims IExecutionContext::getTensorShape(const char* name) const noexcept {
  Dims dims = tensor(name).dims;
  // A free first dimension is that of the first input.
  if (dims.nbDims > 0 && dims.d[0] == -1) dims.d[0] = tensors[0].dims.d[0];
  if (!works("getTensorShape", name)) dims.nbDims = -1;
  return dims;
}
bool IExecutionContext::setTensorAddress(const char* name, void* data) noexcept {
  tensor(name).address = data;
  return works("setTensorAddress", name);
}
bool IExecutionContext::enqueueV3(cudaStream_t) noexcept {
  for (const Tensor& a : tensors) {
    for (const Tensor& b : tensors) {
      if (&a != &b && a.address == b.address) {
        std::printf("SHARED BUFFER %s %s\n", a.name.c_str(), b.name.c_str());
      }
    }
  }
  if (!works("enqueueV3")) return false;
  const Tensor& x = tensors[0];
  for (Tensor& y : tensors) {
    if (y.input) continue;
    std::int64_t count = 1;
    Dims dims = y.dims;
    if (dims.nbDims > 0 && dims.d[0] == -1) dims.d[0] = tensors[0].dims.d[0];
    for (int i = 0; i < dims.nbDims; ++i) count *= dims.d[i];
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = 2 * read(x, i);
      if (y.type == 1) {
        static_cast<adc::Half*>(y.address)[i] = adc::Half(value);
      } else {
        static_cast<float*>(y.address)[i] = value;
      }
    }
  }
  return true;
}

}  // namespace nvinfer1

// --- DRP-AI ------------------------------------------------------------------------------------

namespace {
std::vector<float> drp_input(6);
std::vector<adc::Half> drp_output(6);
}  // namespace

bool MeraDrpRuntimeWrapper::LoadModel(const std::string& folder, std::uint64_t address) {
  const std::size_t slash = folder.rfind("/parts/");
  std::ostringstream detail;
  detail << folder.substr(slash == std::string::npos ? 0 : slash) << " 0x" << std::hex << address;
  return works("LoadModel", detail.str());
}
int MeraDrpRuntimeWrapper::GetNumOutput() { return works("GetNumOutput") ? 1 : 3; }
InOutDataType MeraDrpRuntimeWrapper::GetInputDataType(int) { return InOutDataType::FLOAT32; }
void MeraDrpRuntimeWrapper::SetInput(int index, const float* data) {
  works("SetInput", std::to_string(index));
  drp_input.assign(data, data + drp_input.size());
}
void MeraDrpRuntimeWrapper::SetInput(int index, const std::uint16_t*) {
  works("SetInputHalf", std::to_string(index));
}
void MeraDrpRuntimeWrapper::Run() {
  works("Run");
  for (std::size_t i = 0; i < 6; ++i) drp_output[i] = adc::Half(2 * drp_input[i]);
}
void MeraDrpRuntimeWrapper::Run(int frequency) {
  works("RunAt", std::to_string(frequency));
  Run();
}
std::tuple<InOutDataType, void*, std::int64_t> MeraDrpRuntimeWrapper::GetOutput(int index) {
  const bool ok = works("GetOutput", std::to_string(index));
  return {InOutDataType::FLOAT16, drp_output.data(), ok ? 6 : 5};
}

// --- ONNX Runtime ------------------------------------------------------------------------------

struct OrtStatus {
  std::string text;
};
struct OrtEnv {};
struct OrtSessionOptions {};
struct OrtSession {};
struct OrtMemoryInfo {};
struct OrtValue {
  std::vector<std::int64_t> dims;
  std::vector<float> own;
  float* data;
};
struct OrtTensorTypeAndShapeInfo {
  const OrtValue* value;
};
struct OrtAllocator {};

namespace {

int live_objects = 0;

OrtStatus* status(const char* call, const std::string& detail = "") {
  return works(call, detail) ? nullptr : new OrtStatus{"told to fail"};
}
template <class T>
OrtStatus* make(const char* call, T** out, const std::string& detail = "") {
  if (OrtStatus* failed = status(call, detail)) return failed;
  *out = new T();
  ++live_objects;
  return nullptr;
}
template <class T>
void release(T* object) {
  if (object != nullptr) --live_objects;
  delete object;
}

OrtStatus* append_provider(OrtSessionOptions*, const char* name, const char* const* keys,
                           const char* const* values, std::size_t count) {
  std::string detail = name;
  for (std::size_t i = 0; i < count; ++i) detail += std::string(" ") + keys[i] + "=" + values[i];
  return status("AppendExecutionProvider", detail);
}

OrtStatus* run(OrtSession*, const OrtRunOptions*, const char* const* in, const OrtValue* const* x,
               std::size_t, const char* const*, std::size_t outputs, OrtValue** y) {
  std::string shape;
  for (const std::int64_t d : x[0]->dims) shape += (shape.empty() ? "" : "x") + std::to_string(d);
  if (OrtStatus* failed = status("Run", std::string(in[0]) + " " + shape)) return failed;
  for (std::size_t k = 0; k < outputs; ++k) {
    auto* value = new OrtValue{x[0]->dims, {}, nullptr};
    ++live_objects;
    std::int64_t count = 1;
    for (const std::int64_t d : value->dims) count *= d;
    for (std::int64_t i = 0; i < count; ++i) value->own.push_back(2 * x[0]->data[i]);
    value->data = value->own.data();
    y[k] = value;
  }
  return nullptr;
}

OrtAllocator the_allocator;

const OrtApi& table() {
  static const OrtApi api = [] {
    OrtApi a{};
    a.CreateEnv = [](OrtLoggingLevel, const char*, OrtEnv** o) { return make("CreateEnv", o); };
    a.CreateSessionOptions = [](OrtSessionOptions** o) { return make("CreateSessionOptions", o); };
    a.SetIntraOpNumThreads = [](OrtSessionOptions*, int n) {
      return status("SetIntraOpNumThreads", std::to_string(n));
    };
    a.AddSessionConfigEntry = [](OrtSessionOptions*, const char* key, const char* value) {
      return status("AddSessionConfigEntry", std::string(key) + "=" + value);
    };
    a.SessionOptionsAppendExecutionProvider = append_provider;
    a.CreateSession = [](const OrtEnv*, const char* path, const OrtSessionOptions*,
                         OrtSession** o) {
      const std::string file = path;
      return make("CreateSession", o, file.substr(file.rfind('/') + 1));
    };
    a.CreateCpuMemoryInfo = [](OrtAllocatorType, OrtMemType, OrtMemoryInfo** o) {
      return make("CreateCpuMemoryInfo", o);
    };
    a.GetAllocatorWithDefaultOptions = [](OrtAllocator** o) -> OrtStatus* {
      *o = &the_allocator;
      return status("GetAllocatorWithDefaultOptions");
    };
    a.SessionGetInputCount = [](const OrtSession*, std::size_t* n) -> OrtStatus* {
      *n = 1;
      return status("SessionGetInputCount");
    };
    a.SessionGetInputName = [](const OrtSession*, std::size_t, OrtAllocator*,
                               char** text) -> OrtStatus* {
      if (OrtStatus* failed = status("SessionGetInputName")) return failed;
      *text = new char[2]{'x', '\0'};
      ++live_objects;
      return nullptr;
    };
    a.AllocatorFree = [](OrtAllocator*, void* p) -> OrtStatus* {
      delete[] static_cast<char*>(p);
      --live_objects;
      return status("AllocatorFree");
    };
    a.CreateTensorWithDataAsOrtValue = [](const OrtMemoryInfo*, void* data, std::size_t,
                                          const std::int64_t* dims, std::size_t rank,
                                          ONNXTensorElementDataType, OrtValue** o) -> OrtStatus* {
      if (OrtStatus* failed = status("CreateTensorWithDataAsOrtValue")) return failed;
      *o = new OrtValue{{dims, dims + rank}, {}, static_cast<float*>(data)};
      ++live_objects;
      return nullptr;
    };
    a.Run = run;
    a.GetTensorTypeAndShape = [](const OrtValue* v, OrtTensorTypeAndShapeInfo** o) -> OrtStatus* {
      if (OrtStatus* failed = status("GetTensorTypeAndShape")) return failed;
      *o = new OrtTensorTypeAndShapeInfo{v};
      ++live_objects;
      return nullptr;
    };
    a.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo*,
                                ONNXTensorElementDataType* type) -> OrtStatus* {
      *type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      return status("GetTensorElementType");
    };
    a.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* i, std::size_t* n) -> OrtStatus* {
      *n = i->value->dims.size();
      return status("GetDimensionsCount");
    };
    a.GetDimensions = [](const OrtTensorTypeAndShapeInfo* i, std::int64_t* dims,
                         std::size_t n) -> OrtStatus* {
      for (std::size_t k = 0; k < n; ++k) dims[k] = i->value->dims[k];
      return status("GetDimensions");
    };
    a.GetTensorMutableData = [](OrtValue* v, void** data) -> OrtStatus* {
      *data = v->data;
      return status("GetTensorMutableData");
    };
    a.GetErrorMessage = [](const OrtStatus* s) { return s->text.c_str(); };
    a.ReleaseStatus = [](OrtStatus* s) { delete s; };
    a.ReleaseEnv = release<OrtEnv>;
    a.ReleaseSessionOptions = release<OrtSessionOptions>;
    a.ReleaseSession = release<OrtSession>;
    a.ReleaseMemoryInfo = release<OrtMemoryInfo>;
    a.ReleaseValue = release<OrtValue>;
    a.ReleaseTensorTypeAndShapeInfo = release<OrtTensorTypeAndShapeInfo>;
    return a;
  }();
  return api;
}

}  // namespace

int fake_live_objects() { return live_objects; }

extern "C" const OrtApiBase* OrtGetApiBase() {
  static const OrtApiBase base{[](std::uint32_t) -> const OrtApi* { return &table(); }};
  return &base;
}
