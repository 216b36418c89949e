// ONNX Runtime's C API. A model file is text (fake.hpp), its types those of the interface. Settings,
// and the variables that execution providers read, are printed when the session is made. The text in the
// variable FAKE_REPORT becomes the provider's placement report, in its cache folder (below the cache key,
// unless FAKE_REPORT_ABOVE is set).
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "fake.hpp"
#include "onnxruntime_c_api.h"

struct OrtStatus {
  std::string text;
};
struct OrtEnv {};
struct OrtSessionOptions {};
struct OrtMemoryInfo {};
struct OrtAllocator {};
struct OrtSession {
  std::vector<FakeTensor> inputs;
  std::vector<FakeTensor> outputs;
};
struct OrtTensorTypeAndShapeInfo {
  int type = 0;
  std::vector<std::int64_t> dims;
};
struct OrtTypeInfo {
  OrtTensorTypeAndShapeInfo tensor;
};
struct OrtValue {
  int type = 0;
  std::vector<std::int64_t> dims;
  void* data = nullptr;
  std::vector<float> own;  // memory of a value that the runtime made
};

namespace {

OrtAllocator the_allocator;
std::string cache_folder;  // of the provider that was added last

/// Leaves a report, as VitisAI does while it compiles.
void write_report() {
  const char* text = std::getenv("FAKE_REPORT");
  if (text == nullptr || cache_folder.empty()) return;
  std::filesystem::create_directories(cache_folder);
  std::ofstream(cache_folder + "/vitisai_ep_report.json") << text;
}

std::size_t element_bytes(int type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return 2;
    default:
      return 8;
  }
}

OrtStatus* refuse(const std::string& why) { return new OrtStatus{why}; }

OrtStatus* status(const char* call, const std::string& detail = "") {
  return works(call, detail) ? nullptr : refuse("told to fail");
}

/// Makes an object, which `release` counts down again.
template <class T>
OrtStatus* make(const char* call, T** out, const std::string& detail = "", T made = {}) {
  const Outside mark;
  if (OrtStatus* failed = status(call, detail)) return failed;
  *out = new T(std::move(made));
  ++alive();
  return nullptr;
}
template <class T>
void release(T* object) {
  if (object != nullptr) --alive();
  delete object;
}

OrtStatus* append_provider(OrtSessionOptions*, const char* name, const char* const* keys,
                           const char* const* values, std::size_t count) {
  std::string detail = name;
  for (std::size_t i = 0; i < count; ++i) {
    detail += std::string(" ") + keys[i] + "=" + values[i];
    if (std::string("cache_dir") == keys[i]) cache_folder = values[i];
  }
  for (std::size_t i = 0; i < count && std::getenv("FAKE_REPORT_ABOVE") == nullptr; ++i) {
    if (std::string("cache_key") == keys[i]) cache_folder += std::string("/") + values[i];
  }
  return status("AppendExecutionProvider", detail);
}

OrtStatus* create_session(const OrtEnv*, const char* path, const OrtSessionOptions*,
                          OrtSession** out) {
  const Outside mark;
  for (const char* name : {"XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME", "XLNX_ONNX_EP_REPORT_FILE"}) {
    if (const char* value = std::getenv(name)) works("environment", std::string(name) + "=" + value);
  }
  write_report();
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  std::vector<FakeTensor> tensors;
  if (!parse_model(text.str(), tensors)) return refuse("the model cannot be read");
  OrtSession session;
  for (const FakeTensor& t : tensors) (t.input ? session.inputs : session.outputs).push_back(t);
  const std::string name = path;
  return make("CreateSession", out, name.substr(name.rfind('/') + 1), session);
}

template <std::vector<FakeTensor> OrtSession::* Side>
OrtStatus* get_count(const OrtSession* session, std::size_t* count) {
  const Outside mark;
  *count = (session->*Side).size();
  return status("SessionGetCount");
}

template <std::vector<FakeTensor> OrtSession::* Side>
OrtStatus* get_name(const OrtSession* session, std::size_t i, OrtAllocator*, char** text) {
  const Outside mark;
  if (OrtStatus* failed = status("SessionGetName")) return failed;
  const std::string& name = (session->*Side).at(i).name;
  *text = new char[name.size() + 1];
  name.copy(*text, name.size());
  (*text)[name.size()] = '\0';
  ++alive();
  return nullptr;
}

template <std::vector<FakeTensor> OrtSession::* Side>
OrtStatus* get_type(const OrtSession* session, std::size_t i, OrtTypeInfo** out) {
  const Outside mark;
  const FakeTensor& t = (session->*Side).at(i);
  return make("SessionGetTypeInfo", out, "", OrtTypeInfo{{t.type, t.dims}});
}

bool fits(const OrtValue& value, const FakeTensor& declared) {
  bool same = value.type == declared.type && value.dims.size() == declared.dims.size();
  for (std::size_t i = 0; same && i < value.dims.size(); ++i) {
    same = declared.dims[i] == -1 || declared.dims[i] == value.dims[i];
  }
  return same;
}

/// A value that the runtime makes, or the caller's own; null when that has another type or shape.
OrtValue* result(const FakeTensor& declared, std::int64_t batch, OrtValue* own) {
  std::vector<std::int64_t> dims = declared.dims;
  for (std::int64_t& d : dims) d = d == -1 ? batch : d;
  if (own != nullptr) return own->type == declared.type && own->dims == dims ? own : nullptr;
  auto* made = new OrtValue{declared.type, dims, nullptr, {}};
  made->own.resize(static_cast<std::size_t>(count_of(dims)) + 1);
  made->data = made->own.data();
  ++alive();
  return made;
}

OrtStatus* run(OrtSession* session, const OrtRunOptions*, const char* const* in_names,
               const OrtValue* const* in, std::size_t inputs, const char* const* out_names,
               std::size_t outputs, OrtValue** out) {
  const Outside mark;
  std::string detail;
  std::vector<Given> numbers;
  std::int64_t batch = 1;
  if (inputs != session->inputs.size()) return refuse("another number of inputs");
  for (const FakeTensor& declared : session->inputs) {
    std::size_t i = 0;
    while (i < inputs && declared.name != in_names[i]) ++i;
    if (i == inputs || !fits(*in[i], declared)) return refuse("does not take " + declared.name);
    detail += (detail.empty() ? "" : " ") + declared.name + " " + text_of(in[i]->dims);
    if (declared.name == "x") batch = in[i]->dims.at(0);
    numbers.push_back({declared.name, {}});
    for (std::int64_t n = 0; n < count_of(in[i]->dims); ++n) {
      const bool half = declared.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
      numbers.back().numbers.push_back(read_number(in[i]->data, half, n));
    }
  }
  if (OrtStatus* failed = status("Run", detail)) return failed;
  for (std::size_t o = 0; o < outputs; ++o) {
    std::size_t k = 0;
    while (k < session->outputs.size() && session->outputs[k].name != out_names[o]) ++k;
    if (k == session->outputs.size()) return refuse(std::string("no output ") + out_names[o]);
    const FakeTensor& declared = session->outputs[k];
    out[o] = result(declared, batch, out[o]);
    if (out[o] == nullptr) return refuse("memory of another shape for " + declared.name);
    const bool half = declared.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    for (std::int64_t i = 0; i < count_of(out[o]->dims); ++i) {
      write_number(out[o]->data, half, i, answer(declared.name, i, numbers));
    }
  }
  return nullptr;
}

OrtStatus* wrap(const OrtMemoryInfo*, void* data, std::size_t bytes, const std::int64_t* dims,
                std::size_t rank, ONNXTensorElementDataType type, OrtValue** out) {
  const Outside mark;
  OrtValue value{type, {dims, dims + rank}, data, {}};
  if (bytes < static_cast<std::size_t>(count_of(value.dims)) * element_bytes(type)) {
    return refuse("too little memory");
  }
  return make("CreateTensorWithDataAsOrtValue", out, text_of(value.dims), value);
}

void set_session_calls(OrtApi& a) {
  a.CreateEnv = [](OrtLoggingLevel, const char*, OrtEnv** o) { return make("CreateEnv", o); };
  a.CreateSessionOptions = [](OrtSessionOptions** o) { return make("CreateSessionOptions", o); };
  a.SetIntraOpNumThreads = [](OrtSessionOptions*, int n) {
    return status("SetIntraOpNumThreads", std::to_string(n));
  };
  a.AddSessionConfigEntry = [](OrtSessionOptions*, const char* key, const char* value) {
    return status("AddSessionConfigEntry", std::string(key) + "=" + value);
  };
  a.SessionOptionsAppendExecutionProvider = append_provider;
  a.CreateSession = create_session;
  a.CreateCpuMemoryInfo = [](OrtAllocatorType, OrtMemType, OrtMemoryInfo** o) {
    return make("CreateCpuMemoryInfo", o);
  };
  a.GetAllocatorWithDefaultOptions = [](OrtAllocator** o) -> OrtStatus* {
    *o = &the_allocator;
    return status("GetAllocatorWithDefaultOptions");
  };
  a.SessionGetInputCount = get_count<&OrtSession::inputs>;
  a.SessionGetOutputCount = get_count<&OrtSession::outputs>;
  a.SessionGetInputName = get_name<&OrtSession::inputs>;
  a.SessionGetOutputName = get_name<&OrtSession::outputs>;
  a.SessionGetInputTypeInfo = get_type<&OrtSession::inputs>;
  a.SessionGetOutputTypeInfo = get_type<&OrtSession::outputs>;
  a.CastTypeInfoToTensorInfo = [](const OrtTypeInfo* info,
                                  const OrtTensorTypeAndShapeInfo** out) -> OrtStatus* {
    const bool tensor = info->tensor.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    *out = tensor ? &info->tensor : nullptr;
    return status("CastTypeInfoToTensorInfo");
  };
  a.AllocatorFree = [](OrtAllocator*, void* p) -> OrtStatus* {
    delete[] static_cast<char*>(p);
    --alive();
    return status("AllocatorFree");
  };
}

void set_value_calls(OrtApi& a) {
  a.CreateTensorWithDataAsOrtValue = wrap;
  a.Run = run;
  a.GetTensorTypeAndShape = [](const OrtValue* v, OrtTensorTypeAndShapeInfo** o) -> OrtStatus* {
    const Outside mark;
    return make("GetTensorTypeAndShape", o, "", OrtTensorTypeAndShapeInfo{v->type, v->dims});
  };
  a.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo* info,
                              ONNXTensorElementDataType* type) -> OrtStatus* {
    *type = static_cast<ONNXTensorElementDataType>(info->type);
    return status("GetTensorElementType");
  };
  a.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* i, std::size_t* n) -> OrtStatus* {
    *n = i->dims.size();
    return status("GetDimensionsCount");
  };
  a.GetDimensions = [](const OrtTensorTypeAndShapeInfo* i, std::int64_t* dims,
                       std::size_t n) -> OrtStatus* {
    for (std::size_t k = 0; k < n; ++k) dims[k] = i->dims[k];
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
  a.ReleaseTypeInfo = release<OrtTypeInfo>;
}

const OrtApi& table() {
  static const OrtApi api = [] {
    OrtApi a{};
    set_session_calls(a);
    set_value_calls(a);
    return a;
  }();
  return api;
}

}  // namespace

extern "C" const OrtApiBase* OrtGetApiBase() {
  static const OrtApiBase base{
      [](std::uint32_t version) -> const OrtApi* {
        return version == ORT_API_VERSION && works("GetApi") ? &table() : nullptr;
      },
      []() -> const char* { return "1.17.3"; }};
  return &base;
}
