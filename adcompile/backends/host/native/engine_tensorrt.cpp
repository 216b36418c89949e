// TensorRT 8.5 and newer: one plan, enqueueV3, every tensor in a buffer of its own.
#include <NvInfer.h>
#include <cuda_runtime_api.h>
#if defined(ADC_WITH_TENSORRT_PLUGINS)
#include <NvInferPlugin.h>
#endif

#include <cstdio>
#include <limits>

#include "device_tensor.hpp"
#include "npy.hpp"

namespace adc {

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    fail(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
  }
}

/// Keeps the last error's sentence; a null pointer from TensorRT says nothing by itself.
class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity > Severity::kWARNING) return;
    std::fprintf(stderr, "TensorRT: %s\n", text);
    if (severity > Severity::kERROR) return;
    std::snprintf(last_.data(), last_.size(), "%s", text);
  }
  [[nodiscard]] std::string last() const { return last_.data(); }

 private:
  std::array<char, 512> last_{};
};

/// Numbers, not names: some element types have no name in older versions.
DType element_type(nvinfer1::DataType type, const std::string& tensor) {
  switch (static_cast<int>(type)) {
    case 0: return DType::kFloat32;
    case 1: return DType::kFloat16;
    case 2: return DType::kInt8;
    case 3: return DType::kInt32;
    case 4: return DType::kBool;
    case 5: return DType::kUint8;
    case 7: return DType::kBFloat16;
    case 8: return DType::kInt64;
    default: fail("TensorRT: tensor '" + tensor + "' has an element type this program lacks");
  }
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory(DeviceMemory&& other) noexcept { std::swap(data_, other.data_); }
  ~DeviceMemory() { cudaFree(data_); }

  void* reserve(std::size_t bytes) {
    if (bytes > size_ || data_ == nullptr) {
      check(cudaFree(data_), "cudaFree");
      data_ = nullptr;
      size_ = std::max(bytes, std::size_t{1});
      check(cudaMalloc(&data_, size_), "cudaMalloc");
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "cudaStreamCreate"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  [[nodiscard]] cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// One tensor of the engine and its buffers on both sides.
struct Binding {
  std::string name;
  DType dtype;
  int port;  // number in the part's record, -1: an extra output nobody reads
  Shape shape;  // of an output, in this run
  DeviceMemory device;
  Buffer host;   // as the device gives it
  Buffer ready;  // in the record's element type

  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(shape.size()) * element_size(dtype);
  }
};

class TensorRtEngine final : public Stage {
 public:
  explicit TensorRtEngine(const EngineContext& context)
      : name_(context.part->name),
        inputs_(context.inputs),
        outputs_(context.outputs) {
    check_options(context, {"plan"});
    const std::string path = device_file(context, "plan", "plan");
    const std::vector<unsigned char> plan = read_file(path, std::size_t{1} << 36);
#if defined(ADC_WITH_TENSORRT_PLUGINS)
    if (!initLibNvInferPlugins(&logger_, "")) fail("TensorRT: cannot load the standard plugins");
#endif
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    if (!runtime_) fail("TensorRT: no runtime: " + logger_.last());
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) {
      fail(path + ": TensorRT refuses the plan (" + logger_.last() +
           "); plans fit one GPU model and one TensorRT version: build it on this board");
    }
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail(path + ": no execution context: " + logger_.last());
    bind();
  }

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return inputs_; }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return outputs_; }

  void run(const AnyView* in, AnyView* out) override {
    for (Binding& b : bound_in_) feed(b, in[static_cast<std::size_t>(b.port)]);
    for (Binding& b : bound_out_) place(b);
    if (!context_->enqueueV3(stream_.get())) fail(name_ + ": enqueueV3 failed: " + logger_.last());
    for (Binding& b : bound_out_) fetch(b);
    check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    for (Binding& b : bound_out_) deliver(b, out);
  }

 private:
  void bind() {
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char* tensor = engine_->getIOTensorName(i);
      const bool input = engine_->getTensorIOMode(tensor) == nvinfer1::TensorIOMode::kINPUT;
      const std::vector<Port>& ports = input ? inputs_ : outputs_;
      Binding b{tensor, element_type(engine_->getTensorDataType(tensor), tensor),
                port_index(ports, tensor), {}, {}, {}, {}};
      if (b.port >= 0) {
        const Port& port = ports[static_cast<std::size_t>(b.port)];
        check_declared(name_, port, b.dtype, dims_of(tensor));
      } else if (input) {
        fail(name_ + ": the plan has an input '" + b.name + "' that the bundle does not know");
      }
      (input ? bound_in_ : bound_out_).push_back(std::move(b));
    }
    if (bound_in_.size() != inputs_.size()) fail(name_ + ": the plan lacks an input");
    for (std::size_t k = 0; k < outputs_.size(); ++k) {
      bool found = false;
      for (const Binding& b : bound_out_) found = found || b.port == static_cast<int>(k);
      if (!found) fail(name_ + ": the plan lacks the output '" + outputs_[k].name + "'");
    }
  }

  [[nodiscard]] std::vector<Index> dims_of(const char* tensor) const {
    const nvinfer1::Dims dims = engine_->getTensorShape(tensor);
    std::vector<Index> found;
    for (int i = 0; i < dims.nbDims; ++i) found.push_back(static_cast<Index>(dims.d[i]));
    return found;
  }

  void feed(Binding& b, const AnyView& tensor) {
    check_port(tensor, inputs_[static_cast<std::size_t>(b.port)]);
    nvinfer1::Dims dims{};
    dims.nbDims = tensor.shape.rank();
    for (int i = 0; i < tensor.shape.rank(); ++i) {
      if (tensor.shape[i] > std::numeric_limits<std::int32_t>::max()) fail(name_ + ": too large");
      dims.d[i] = static_cast<std::int32_t>(tensor.shape[i]);
    }
    if (!context_->setInputShape(b.name.c_str(), dims)) {
      fail(name_ + ": the plan does not take '" + b.name + "' of shape " + tensor.shape.text());
    }
    const AnyView staged = convert(tensor, b.dtype, b.host);
    void* device = b.device.reserve(staged.bytes());
    check(cudaMemcpyAsync(device, staged.data, staged.bytes(), cudaMemcpyHostToDevice, stream_.get()),
          "copy to the device");
    if (!context_->setTensorAddress(b.name.c_str(), device)) {
      fail(name_ + ": setTensorAddress failed for '" + b.name + "'");
    }
  }

  /// The output's shape now that all inputs have theirs, and memory for it.
  void place(Binding& b) {
    const nvinfer1::Dims dims = context_->getTensorShape(b.name.c_str());
    if (dims.nbDims < 0 || dims.nbDims > kMaxRank) fail(name_ + ": '" + b.name + "' has no shape");
    b.shape = Shape();
    for (int i = 0; i < dims.nbDims; ++i) {
      if (dims.d[i] < 0) fail(name_ + ": the size of '" + b.name + "' depends on the data");
      b.shape.push_back(static_cast<Index>(dims.d[i]));
    }
    if (!context_->setTensorAddress(b.name.c_str(), b.device.reserve(b.bytes()))) {
      fail(name_ + ": setTensorAddress failed for '" + b.name + "'");
    }
  }

  void fetch(Binding& b) {
    if (b.port < 0) return;
    const std::size_t bytes = b.bytes();
    check(cudaMemcpyAsync(b.host.reserve(bytes), b.device.reserve(bytes), bytes,
                          cudaMemcpyDeviceToHost, stream_.get()),
          "copy from the device");
  }

  void deliver(Binding& b, AnyView* out) {
    if (b.port < 0) return;
    const AnyView found(b.dtype, b.shape, b.host.data());
    out[b.port] = convert(found, outputs_[static_cast<std::size_t>(b.port)].dtype, b.ready);
  }

  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  Logger logger_;
  // Destroyed from the bottom up: buffers and stream, context, engine, runtime.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  Stream stream_;
  std::vector<Binding> bound_in_;
  std::vector<Binding> bound_out_;
};

}  // namespace

std::unique_ptr<Stage> open_tensorrt(const EngineContext& context) {
  return std::make_unique<TensorRtEngine>(context);
}

}  // namespace adc
