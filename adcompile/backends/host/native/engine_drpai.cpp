// DRP-AI on RZ/V boards through the TVM runtime wrapper. Outputs may be float16.
#include <MeraDrpRuntimeWrapper.h>
#include <fcntl.h>
#include <linux/drpai.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "device_tensor.hpp"

namespace adc {

namespace {

/// Where the accelerator's memory starts: the option drpai_address, else what the driver says plus
/// the offset that leaves room for the pre-processing runtime on RZ/V2H.
std::uint64_t start_address(const EngineContext& context) {
  const std::string given = option(context, "drpai_address", "");
  if (!given.empty()) return std::strtoull(given.c_str(), nullptr, 0);
  const int device = ::open("/dev/drpai0", O_RDWR);
  if (device < 0) fail(std::string("/dev/drpai0: ") + std::strerror(errno));
  drpai_data_t area{};
  const int failed = ::ioctl(device, DRPAI_GET_DRPAI_AREA, &area);
  const int why = errno;
  ::close(device);
  if (failed != 0) fail(std::string("/dev/drpai0: no memory area: ") + std::strerror(why));
  const std::string offset = option(context, "drpai_offset", "0x38E0000");
  return static_cast<std::uint64_t>(area.address) + std::strtoull(offset.c_str(), nullptr, 0);
}

class DrpAiEngine final : public Stage {
 public:
  explicit DrpAiEngine(const EngineContext& context)
      : name_(context.part->name),
        inputs_(context.inputs),
        outputs_(context.outputs),
        frequency_(std::atoi(option(context, "drpai_frequency", "0").c_str())) {
    check_options(context, {"plan", "drpai_address", "drpai_offset", "drpai_frequency"});
    const std::string standard = context.folder + "/parts/" + name_ + "/compiled";
    const std::string folder = option(context, "plan", standard);
    if (!runtime_.LoadModel(folder, start_address(context))) {
      fail(folder + ": the DRP-AI runtime cannot load the model");
    }
    if (runtime_.GetNumInput(folder) != static_cast<int>(inputs_.size())) {
      fail(folder + ": the model has " + std::to_string(runtime_.GetNumInput(folder)) +
           " inputs, the bundle says " + std::to_string(inputs_.size()));
    }
    if (runtime_.GetNumOutput() != static_cast<int>(outputs_.size())) {
      fail(folder + ": the model has " + std::to_string(runtime_.GetNumOutput()) +
           " outputs, the bundle says " + std::to_string(outputs_.size()));
    }
    for (const Port& port : outputs_) shapes_.push_back(fixed_shape(port));
    ready_.resize(outputs_.size());
    staged_.resize(inputs_.size());
  }

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return inputs_; }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return outputs_; }

  void run(const AnyView* in, AnyView* out) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      check_port(in[i], inputs_[i]);
      feed(static_cast<int>(i), in[i], staged_[i]);
    }
    if (frequency_ > 0) {
      runtime_.Run(frequency_);
    } else {
      runtime_.Run();
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      out[i] = fetch(static_cast<int>(i), outputs_[i], shapes_[i], ready_[i]);
    }
  }

 private:
  /// A compiled model has fixed shapes; a free first dimension is one row per call.
  Shape fixed_shape(const Port& port) const {
    Shape shape;
    for (std::size_t i = 0; i < port.dims.size(); ++i) {
      if (port.dims[i] == kFree && i != 0) fail(name_ + ": '" + port.name + "' has no fixed shape");
      shape.push_back(port.dims[i] == kFree ? 1 : port.dims[i]);
    }
    return shape;
  }

  void feed(int index, const AnyView& tensor, Buffer& staged) {
    const InOutDataType type = runtime_.GetInputDataType(index);
    const bool half = type == InOutDataType::FLOAT16;
    if (!half && type != InOutDataType::FLOAT32) {
      fail(name_ + ": input " + std::to_string(index) + " is neither float16 nor float32");
    }
    const DType want = half ? DType::kFloat16 : DType::kFloat32;
    const Index count = tensor.shape.size();
    std::byte* to = staged.reserve(static_cast<std::size_t>(count) * element_size(want));
    convert_elements(tensor.data, tensor.dtype, count, want, to);
    if (half) {
      runtime_.SetInput(index, reinterpret_cast<std::uint16_t*>(to));
    } else {
      runtime_.SetInput(index, reinterpret_cast<float*>(to));
    }
  }

  AnyView fetch(int index, const Port& port, const Shape& shape, Buffer& ready) {
    const auto result = runtime_.GetOutput(index);
    const void* data = std::get<1>(result);
    const auto count = static_cast<Index>(std::get<2>(result));
    if (data == nullptr || count != shape.size()) {
      fail(name_ + ": output '" + port.name + "' has " + std::to_string(count) +
           " numbers, expected " + std::to_string(shape.size()));
    }
    const InOutDataType type = std::get<0>(result);
    if (type != InOutDataType::FLOAT16 && type != InOutDataType::FLOAT32) {
      fail(name_ + ": output '" + port.name + "' is neither float16 nor float32");
    }
    const DType have = type == InOutDataType::FLOAT16 ? DType::kFloat16 : DType::kFloat32;
    std::byte* to =
        ready.reserve(static_cast<std::size_t>(count) * element_size(port.dtype));
    convert_elements(data, have, count, port.dtype, to);
    return {port.dtype, shape, to};
  }

  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  int frequency_;
  MeraDrpRuntimeWrapper runtime_;
  std::vector<Shape> shapes_;
  std::vector<Buffer> staged_;
  std::vector<Buffer> ready_;
};

}  // namespace

std::unique_ptr<Stage> open_drpai(const EngineContext& context) {
  return std::make_unique<DrpAiEngine>(context);
}

}  // namespace adc
