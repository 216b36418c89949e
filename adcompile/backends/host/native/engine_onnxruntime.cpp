// ONNX Runtime through its C API: VitisAI on Ryzen AI, or the CPU.
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "device_tensor.hpp"
#include "npy.hpp"
#include "ort_api.hpp"
#include "placement_report.hpp"
#include "provider_session.hpp"

namespace adc {

namespace {

using ort::api;
using ort::check;
using ort::Owned;

/// A tensor that goes in. Its value wraps the caller's memory, and is made again only when that moves.
struct Input {
  DType dtype = DType::kFloat32;  // of the model
  Owned<OrtValue> value{api().ReleaseValue};
  const void* data = nullptr;
  Shape shape;
  Buffer converted;  // when the model has another element type
};

/// A tensor that comes out. One whose size the model fixes is written into memory of ours, always the
/// same; any other is the runtime's, and kept until the next run.
struct Output {
  ort::TensorType type;  // as the model declares it, then as it came
  bool fixed = false;
  Shape shape;
  Owned<OrtValue> value{api().ReleaseValue};
  const void* data = nullptr;
  Buffer memory;
  Buffer converted;  // when the bundle has another element type
};

class OrtEngine final : public Stage {
 public:
  explicit OrtEngine(const EngineContext& context)
      : name_(context.part->name),
        ports_in_(context.inputs),
        ports_out_(context.outputs),
        env_(api().ReleaseEnv),
        settings_(api().ReleaseSessionOptions),
        session_(api().ReleaseSession),
        memory_(api().ReleaseMemoryInfo) {
    check_options(context, {"plan", "provider", "threads", "xclbin", "config_file", "cache_dir",
                            "encryption_key", "no_cpu_fallback", "as_planned", "driver"});
    const bool insist = option(context, "as_planned", "") == "true";
    const bool cpu = option(context, "provider", "") == "cpu" || !has_file(context, "session");
    if (cpu && insist) fail("part " + name_ + ": nothing of it runs on an NPU");
    const std::string path = device_file(context, "plan", model_use(context, cpu));
    check(api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "adcompile", env_.out()), "CreateEnv");
    check(api().CreateSessionOptions(settings_.out()), "CreateSessionOptions");
    const int threads = std::atoi(option(context, "threads", "0").c_str());
    if (threads > 0) {
      check(api().SetIntraOpNumThreads(settings_.get(), threads), "SetIntraOpNumThreads");
    }
    configure("session.force_spinning_stop", "1");  // sessions share the cores of the board
    std::optional<ReportWatch> report;
    if (cpu) {
      configure("session.x64quantprecision", "1");  // 8-bit products must not saturate
    } else {
      report.emplace(add_provider(context, path));
    }
    const std::filesystem::path file(path);  // in the characters that the system's paths have
    check(api().CreateSession(env_.get(), file.c_str(), settings_.get(), session_.out()),
          "CreateSession");
    if (report) placement_ = report->describe(insist);
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.out()),
          "CreateCpuMemoryInfo");
    bind();
  }

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return ports_in_; }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return ports_out_; }
  [[nodiscard]] std::string placement() const override { return placement_; }

  void run(const AnyView* in, AnyView* out) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      check_port(in[i], ports_in_[i]);
      feed(inputs_[i], in[i]);
      given_[i] = inputs_[i].value.get();
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      made_[i] = outputs_[i].fixed ? outputs_[i].value.get() : nullptr;
    }
    OrtStatus* failed =
        api().Run(session_.get(), nullptr, names_in_.data(), given_.data(), given_.size(),
                  names_out_.data(), names_out_.size(), made_.data());
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (!outputs_[i].fixed) outputs_[i].value.reset(made_[i]);
    }
    check(failed, "Run");
    for (std::size_t i = 0; i < outputs_.size(); ++i) out[i] = deliver(outputs_[i], ports_out_[i]);
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

  /// The provider and its options from the part's session.json; returns what was settled.
  SessionPlan add_provider(const EngineContext& context, const std::string& model) {
    const std::string path = device_file(context, "session", "session");
    const std::vector<unsigned char> text = read_file(path, std::size_t{1} << 20);
    const SessionRequest request{name_, path.substr(0, path.rfind('/')), model,
                                 OrtGetApiBase()->GetVersionString(), context.options};
    const SessionPlan plan =
        settle_session(parse_session(text.data(), text.size(), path), request);
    set_environment(plan);
    for (const auto& [key, value] : plan.config) configure(key.c_str(), value.c_str());
    std::vector<const char*> keys;
    std::vector<const char*> values;
    for (const auto& [key, value] : plan.options) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
    std::string short_name = plan.provider;  // the C API leaves the suffix out
    const std::string suffix = "ExecutionProvider";
    const std::size_t at = short_name.rfind(suffix);
    if (at != std::string::npos && at > 0) short_name.resize(at);
    check(api().SessionOptionsAppendExecutionProvider(settings_.get(), short_name.c_str(),
                                                      keys.data(), values.data(), keys.size()),
          short_name.c_str());
    return plan;
  }

  struct Declared {
    std::string name;
    ort::TensorType type;
  };

  /// What the session's model declares on one side.
  std::vector<Declared> declared(decltype(OrtApi::SessionGetInputCount) count_of,
                                 decltype(OrtApi::SessionGetInputName) name_of,
                                 decltype(OrtApi::SessionGetInputTypeInfo) type_of) {
    OrtAllocator* allocator = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&allocator), "GetAllocatorWithDefaultOptions");
    std::size_t count = 0;
    check(count_of(session_.get(), &count), "SessionGetCount");
    std::vector<Declared> found;
    for (std::size_t i = 0; i < count; ++i) {
      char* text = nullptr;
      check(name_of(session_.get(), i, allocator, &text), "SessionGetName");
      const std::string name = text;
      check(api().AllocatorFree(allocator, text), "AllocatorFree");
      Owned<OrtTypeInfo> type(api().ReleaseTypeInfo);
      check(type_of(session_.get(), i, type.out()), "SessionGetTypeInfo");
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // a part of `type`
      check(api().CastTypeInfoToTensorInfo(type.get(), &tensor), "CastTypeInfoToTensorInfo");
      if (tensor == nullptr) fail(name_ + ": '" + name + "' of the model is no tensor");
      found.push_back({name, {}});
      found.back().type.read(tensor, name.c_str());
    }
    return found;
  }

  /// The declared type of a port; fails unless it is the bundle's.
  const ort::TensorType& type_of(const std::vector<Declared>& side, const Port& port) const {
    for (const Declared& tensor : side) {
      if (tensor.name != port.name) continue;
      check_declared(name_, port, tensor.type.dtype, tensor.type.dims);
      return tensor.type;
    }
    fail(name_ + ": the model lacks '" + port.name + "'");
  }

  /// Compares the model's tensors with the bundle's, and makes memory for those of fixed size.
  void bind() {
    const auto in = declared(api().SessionGetInputCount, api().SessionGetInputName,
                             api().SessionGetInputTypeInfo);
    const auto out = declared(api().SessionGetOutputCount, api().SessionGetOutputName,
                              api().SessionGetOutputTypeInfo);
    for (const Declared& tensor : in) {
      if (port_index(ports_in_, tensor.name) < 0) {
        fail(name_ + ": the model has an input '" + tensor.name + "' that the bundle does not know");
      }
    }
    for (const Port& port : ports_in_) {
      inputs_.emplace_back();
      inputs_.back().dtype = type_of(in, port).dtype;
      names_in_.push_back(port.name);
    }
    for (const Port& port : ports_out_) {
      outputs_.emplace_back();
      prepare(outputs_.back(), type_of(out, port));
      names_out_.push_back(port.name);
    }
    given_.resize(inputs_.size());
    made_.resize(outputs_.size());
  }

  void prepare(Output& output, const ort::TensorType& type) {
    output.type = type;
    output.fixed = std::all_of(type.dims.begin(), type.dims.end(), [](Index d) { return d > 0; });
    if (!output.fixed) return;
    for (const Index d : type.dims) output.shape.push_back(d);
    AnyView whole(type.dtype, output.shape, nullptr);
    output.data = output.memory.reserve(whole.bytes());
    whole.data = output.data;
    wrap(output.value, whole);
  }

  /// A value of the runtime around our memory.
  void wrap(Owned<OrtValue>& value, const AnyView& tensor) {
    check(api().CreateTensorWithDataAsOrtValue(
              memory_.get(), const_cast<void*>(tensor.data), tensor.bytes(), tensor.shape.begin(),
              static_cast<std::size_t>(tensor.shape.rank()), ort::to_ort(tensor.dtype),
              value.out()),
          "CreateTensorWithDataAsOrtValue");
  }

  void feed(Input& input, const AnyView& tensor) {
    const void* data = tensor.data;
    if (tensor.dtype != input.dtype) data = convert(tensor, input.dtype, input.converted).data;
    if (input.value.get() != nullptr && data == input.data && tensor.shape == input.shape) return;
    wrap(input.value, {input.dtype, tensor.shape, data});
    input.data = data;
    input.shape = tensor.shape;
  }

  AnyView deliver(Output& output, const Port& port) {
    if (!output.fixed) look_at(output, port);
    const AnyView found(output.type.dtype, output.shape, output.data);
    return found.dtype == port.dtype ? found : convert(found, port.dtype, output.converted);
  }

  /// Type, shape and memory of a value that the runtime made.
  static void look_at(Output& output, const Port& port) {
    Owned<OrtTensorTypeAndShapeInfo> info(api().ReleaseTensorTypeAndShapeInfo);
    check(api().GetTensorTypeAndShape(output.value.get(), info.out()), "GetTensorTypeAndShape");
    output.type.read(info.get(), port.name);
    output.shape = Shape();
    for (const Index d : output.type.dims) output.shape.push_back(d);
    void* data = nullptr;
    check(api().GetTensorMutableData(output.value.get(), &data), "GetTensorMutableData");
    output.data = output.shape.size() > 0 ? data : output.memory.reserve(1);
  }

  std::string name_;
  std::string placement_;
  std::vector<Port> ports_in_;
  std::vector<Port> ports_out_;
  // Destroyed from the bottom up: values before the session that they belong to.
  Owned<OrtEnv> env_;
  Owned<OrtSessionOptions> settings_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  std::vector<Input> inputs_;
  std::vector<Output> outputs_;
  // arguments of a run, in the order of the ports
  std::vector<const char*> names_in_;
  std::vector<const char*> names_out_;
  std::vector<const OrtValue*> given_;
  std::vector<OrtValue*> made_;
};

}  // namespace

std::unique_ptr<Stage> open_onnxruntime(const EngineContext& context) {
  return std::make_unique<OrtEngine>(context);
}

}  // namespace adc
