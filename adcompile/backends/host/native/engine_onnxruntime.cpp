// ONNX Runtime through its C API: VitisAI on Ryzen AI, or the CPU.
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <deque>

#include "device_tensor.hpp"
#include "npy.hpp"

namespace adc {

namespace {

const OrtApi& api() {
  const OrtApiBase* base = OrtGetApiBase();
  const OrtApi* found = base == nullptr ? nullptr : base->GetApi(ORT_API_VERSION);
  if (found == nullptr) fail("ONNX Runtime: the library is older than the headers");
  return *found;
}

/// Turns a status into an exception; a null status is success.
void check(OrtStatus* status, const char* what) {
  if (status == nullptr) return;
  const std::string text = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  fail(std::string("ONNX Runtime: ") + what + ": " + text);
}

/// Owns an object that the API releases by one of its functions.
template <class T>
class Owned {
 public:
  explicit Owned(void (*release)(T*)) : release_(release) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Owned(Owned&& other) noexcept : object_(other.object_), release_(other.release_) {
    other.object_ = nullptr;
  }
  ~Owned() { reset(); }
  void reset() {
    if (object_ != nullptr) release_(object_);
    object_ = nullptr;
  }
  T** out() {
    reset();
    return &object_;
  }
  [[nodiscard]] T* get() const { return object_; }

 private:
  T* object_ = nullptr;
  void (*release_)(T*);
};

struct TypeName {
  DType dtype;
  ONNXTensorElementDataType ort;
};
constexpr std::array<TypeName, 12> kTypes{{
    {DType::kFloat32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {DType::kFloat64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    {DType::kFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {DType::kBFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
    {DType::kBool, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
    {DType::kInt8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {DType::kInt16, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {DType::kInt32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {DType::kInt64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {DType::kUint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {DType::kUint16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16},
    {DType::kUint32, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32},
}};

ONNXTensorElementDataType to_ort(DType dtype) {
  for (const TypeName& t : kTypes) {
    if (t.dtype == dtype) return t.ort;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64;
}

DType from_ort(ONNXTensorElementDataType type) {
  for (const TypeName& t : kTypes) {
    if (t.ort == type) return t.dtype;
  }
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64) return DType::kUint64;
  fail("ONNX Runtime: an output has an element type this program lacks");
}

class OrtEngine final : public Stage {
 public:
  explicit OrtEngine(const EngineContext& context)
      : name_(context.part->name),
        inputs_(context.inputs),
        outputs_(context.outputs),
        env_(api().ReleaseEnv),
        settings_(api().ReleaseSessionOptions),
        session_(api().ReleaseSession),
        memory_(api().ReleaseMemoryInfo) {
    const bool cpu = option(context, "provider", "") == "cpu";
    const std::string path = device_file(context, "plan", model_use(context, cpu));
    check(api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "adcompile", env_.out()), "CreateEnv");
    check(api().CreateSessionOptions(settings_.out()), "CreateSessionOptions");
    const int threads = std::atoi(option(context, "threads", "0").c_str());
    if (threads > 0) {
      check(api().SetIntraOpNumThreads(settings_.get(), threads), "SetIntraOpNumThreads");
    }
    configure("session.force_spinning_stop", "1");  // sessions share the cores of the board
    if (cpu) {
      configure("session.x64quantprecision", "1");  // 8-bit products must not saturate
    } else {
      add_provider(context);
    }
    check(api().CreateSession(env_.get(), path.c_str(), settings_.get(), session_.out()),
          "CreateSession");
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.out()),
          "CreateCpuMemoryInfo");
    check_names();
    ready_.resize(outputs_.size());
  }

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return inputs_; }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return outputs_; }

  void run(const AnyView* in, AnyView* out) override {
    std::vector<Owned<OrtValue>> given;
    std::vector<const OrtValue*> values;
    std::vector<const char*> in_names;
    std::vector<const char*> out_names;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      check_port(in[i], inputs_[i]);
      given.emplace_back(api().ReleaseValue);
      const Shape& shape = in[i].shape;
      check(api().CreateTensorWithDataAsOrtValue(
                memory_.get(), const_cast<void*>(in[i].data), in[i].bytes(), shape.begin(),
                static_cast<std::size_t>(shape.rank()), to_ort(in[i].dtype), given[i].out()),
            "CreateTensorWithDataAsOrtValue");
      values.push_back(given[i].get());
      in_names.push_back(inputs_[i].name);
    }
    for (const Port& port : outputs_) out_names.push_back(port.name);
    std::vector<OrtValue*> made(outputs_.size(), nullptr);
    check(api().Run(session_.get(), nullptr, in_names.data(), values.data(), values.size(),
                    out_names.data(), out_names.size(), made.data()),
          "Run");
    std::vector<Owned<OrtValue>> results;
    for (OrtValue* value : made) {
      results.emplace_back(api().ReleaseValue);
      *results.back().out() = value;
    }
    for (std::size_t i = 0; i < results.size(); ++i) out[i] = fetch(results[i].get(), i);
  }

 private:
  /// What the CPU runs is the simulation of the device: some devices compile a float model
  /// themselves.
  static std::string model_use(const EngineContext& context, bool cpu) {
    const std::string device = "device";
    const std::string simulation = "simulation";
    const std::string use = cpu ? find_use(context, {simulation, device})
                                : find_use(context, {device, simulation});
    if (use.empty() && context.rows > 0) {
      fail(std::string("part ") + context.part->name + ": the bundle has no model for " +
           std::to_string(context.rows) + " regions");
    }
    return use.empty() ? "model" : use;
  }

  void configure(const char* key, const char* value) {
    check(api().AddSessionConfigEntry(settings_.get(), key, value), "AddSessionConfigEntry");
  }

  /// The provider and its options from the part's session.json; without one: the CPU.
  void add_provider(const EngineContext& context) {
    if (!has_file(context, "session")) return;
    const std::string path = device_file(context, "session", "session");
    const std::vector<unsigned char> text = read_file(path, std::size_t{1} << 20);
    const Json root = parse_json(text.data(), text.size(), path);
    const Json* provider = root.find("provider");
    const Json* chosen = root.find("provider_options");
    const Json* config = root.find("session_config");
    if (config != nullptr) {
      for (const auto& member : config->members) {
        configure(member.first.c_str(), member.second.text.c_str());
      }
    }
    if (provider == nullptr || provider->text.empty()) fail(path + ": names no provider");
    std::vector<const char*> keys;
    std::vector<const char*> options;
    std::deque<std::string> values;  // never moves what it holds
    if (chosen != nullptr) {
      for (const auto& member : chosen->members) {
        keys.push_back(member.first.c_str());
        values.push_back(cache_key(member, context.rows));
        options.push_back(values.back().c_str());
      }
    }
    std::string short_name = provider->text;
    const std::string suffix = "ExecutionProvider";
    if (short_name.size() > suffix.size() &&
        short_name.compare(short_name.size() - suffix.size(), suffix.size(), suffix) == 0) {
      short_name.resize(short_name.size() - suffix.size());
    }
    check(api().SessionOptionsAppendExecutionProvider(settings_.get(), short_name.c_str(),
                                                      keys.data(), options.data(), keys.size()),
          short_name.c_str());
  }

  /// The value of a provider option. Compiled models of different sizes have different cache keys.
  static std::string cache_key(const std::pair<std::string, Json>& option, Index rows) {
    const bool key = option.first == "cache_key" || option.first == "cacheKey";
    return option.second.text + (key && rows > 0 ? "-rows" + std::to_string(rows) : "");
  }

  void check_names() {
    OrtAllocator* allocator = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&allocator), "GetAllocatorWithDefaultOptions");
    std::size_t count = 0;
    check(api().SessionGetInputCount(session_.get(), &count), "SessionGetInputCount");
    if (count != inputs_.size()) fail(name_ + ": the model has another number of inputs");
    for (std::size_t i = 0; i < count; ++i) {
      char* text = nullptr;
      check(api().SessionGetInputName(session_.get(), i, allocator, &text), "SessionGetInputName");
      const bool known = port_index(inputs_, text) >= 0;
      const std::string copy = text;
      check(api().AllocatorFree(allocator, text), "AllocatorFree");
      if (!known) fail(name_ + ": the model's input '" + copy + "' is not the bundle's");
    }
  }

  AnyView fetch(OrtValue* value, std::size_t i) {
    Owned<OrtTensorTypeAndShapeInfo> info(api().ReleaseTensorTypeAndShapeInfo);
    check(api().GetTensorTypeAndShape(value, info.out()), "GetTensorTypeAndShape");
    ONNXTensorElementDataType type{};
    std::size_t rank = 0;
    check(api().GetTensorElementType(info.get(), &type), "GetTensorElementType");
    check(api().GetDimensionsCount(info.get(), &rank), "GetDimensionsCount");
    if (rank > kMaxRank) fail(name_ + ": an output of rank over 8");
    std::array<std::int64_t, kMaxRank> dims{};
    check(api().GetDimensions(info.get(), dims.data(), rank), "GetDimensions");
    Shape shape;
    for (std::size_t d = 0; d < rank; ++d) shape.push_back(dims[d]);
    void* data = nullptr;
    check(api().GetTensorMutableData(value, &data), "GetTensorMutableData");
    const DType want = outputs_[i].dtype;
    std::byte* to = ready_[i].reserve(static_cast<std::size_t>(shape.size()) * element_size(want));
    if (shape.size() > 0) convert_elements(data, from_ort(type), shape.size(), want, to);
    return {want, shape, to};
  }

  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  Owned<OrtEnv> env_;
  Owned<OrtSessionOptions> settings_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  std::vector<Buffer> ready_;
};

}  // namespace

std::unique_ptr<Stage> open_onnxruntime(const EngineContext& context) {
  return std::make_unique<OrtEngine>(context);
}

}  // namespace adc
