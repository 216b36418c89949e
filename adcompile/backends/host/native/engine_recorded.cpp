// Stands for a device: answers with the tensors recorded when the bundle was built.
#include <cmath>

#include "engine.hpp"
#include "npy.hpp"

namespace adc {

namespace {

/// Largest |difference| that still counts as the recorded input, relative to the largest value.
constexpr float kClose = 1e-3f;

class Recorded final : public Stage {
 public:
  explicit Recorded(const EngineContext& context)
      : name_(context.part->name),
        inputs_(context.inputs),
        outputs_(context.outputs),
        by_row_(context.part->by_row) {
    const std::vector<GoldenInfo>& golden = context.info->golden;
    if (context.sample >= golden.size()) fail("the bundle has no such golden sample");
    const auto load = [&](const std::vector<int>& values, std::vector<Array>& into) {
      for (const int v : values) into.push_back(tensor(context, golden[context.sample], v));
    };
    load(context.part->inputs, recorded_in_);
    load(context.part->outputs, recorded_out_);
    permuted_.resize(outputs_.size());
  }

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return inputs_; }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return outputs_; }

  void run(const AnyView* in, AnyView* out) override {
    if (!by_row_) {
      for (std::size_t i = 0; i < recorded_in_.size(); ++i) compare(in[i], recorded_in_[i].view());
      for (std::size_t i = 0; i < recorded_out_.size(); ++i) out[i] = recorded_out_[i].view();
      return;
    }
    // Equal scores may come in another order than in the recording: rows are found by content.
    const std::vector<Index> source = match_rows(in[0], recorded_in_[0].view());
    for (std::size_t i = 0; i < recorded_out_.size(); ++i) {
      const AnyView from = recorded_out_[i].view();
      require(from.shape.rank() > 0, "recorded rows of a scalar");
      const Index rows = from.shape[0];
      const std::size_t bytes = rows == 0 ? 0 : from.bytes() / static_cast<std::size_t>(rows);
      Shape shape = from.shape;
      shape[0] = static_cast<Index>(source.size());
      std::byte* to = permuted_[i].reserve(bytes * source.size());
      for (std::size_t r = 0; r < source.size(); ++r) {
        const auto* row = static_cast<const std::byte*>(from.data);
        std::memcpy(to + r * bytes, row + static_cast<std::size_t>(source[r]) * bytes, bytes);
      }
      out[i] = AnyView(from.dtype, shape, to);
    }
  }

 private:
  static Array tensor(const EngineContext& context, const GoldenInfo& sample, int value) {
    for (const GoldenTensor& t : sample.tensors) {
      if (t.value == value) return read_npy(context.folder + "/" + t.path);
    }
    fail(std::string("part ") + context.part->name + ": '" +
         context.info->values[static_cast<std::size_t>(value)].name + "' was not recorded");
  }

  [[nodiscard]] float distance(const float* a, const float* b, Index n, Index step) const {
    float worst = 0;
    for (Index i = 0; i < n; i += step) {
      const float d = std::fabs(a[i] - b[i]);
      worst = d > worst || d != d ? d : worst;
    }
    return worst;
  }

  static float magnitude(const AnyView& t) {
    float largest = 1e-6f;
    const auto* x = static_cast<const float*>(t.data);
    for (Index i = 0; i < t.shape.size(); ++i) largest = std::max(largest, std::fabs(x[i]));
    return largest;
  }

  void compare(const AnyView& given, const AnyView& recorded) const {
    if (given.dtype != DType::kFloat32 || recorded.dtype != given.dtype) return;
    if (given.shape != recorded.shape) differs();
    const auto* a = static_cast<const float*>(given.data);
    const auto* b = static_cast<const float*>(recorded.data);
    if (!(distance(a, b, given.shape.size(), 1) <= kClose * magnitude(recorded))) differs();
  }

  [[noreturn]] void differs() const {
    fail("part " + name_ + ": its input is not the recorded one (another image, or an earlier "
         "part differs)");
  }

  [[nodiscard]] std::vector<Index> match_rows(const AnyView& given, const AnyView& recorded) const {
    require(given.dtype == DType::kFloat32 && recorded.dtype == given.dtype &&
                given.shape.rank() > 0 && given.shape.rank() == recorded.shape.rank(),
            "recorded rows: not float32 rows");
    const Index rows = given.shape[0];
    const Index known = recorded.shape[0];
    const Index n = given.shape.product(1, given.shape.rank());
    if (n != recorded.shape.product(1, recorded.shape.rank())) differs();
    const auto* a = static_cast<const float*>(given.data);
    const auto* b = static_cast<const float*>(recorded.data);
    const float limit = kClose * magnitude(recorded);
    const Index coarse = std::max(n / 32, Index{1});
    std::vector<Index> source;
    std::vector<bool> used(static_cast<std::size_t>(known), false);
    for (Index r = 0; r < rows; ++r) {
      Index found = -1;
      for (Index k = 0; k < known && found < 0; ++k) {
        // First the same place, then outwards through all others.
        const Index c = (r + k) % std::max(known, Index{1});
        if (used[static_cast<std::size_t>(c)]) continue;
        if (!(distance(a + r * n, b + c * n, n, coarse) <= limit)) continue;
        if (distance(a + r * n, b + c * n, n, 1) <= limit) found = c;
      }
      if (found < 0) differs();
      used[static_cast<std::size_t>(found)] = true;
      source.push_back(found);
    }
    return source;
  }

  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  bool by_row_;
  std::vector<Array> recorded_in_;
  std::vector<Array> recorded_out_;
  std::vector<Buffer> permuted_;
};

}  // namespace

std::unique_ptr<Stage> open_recorded(const EngineContext& context) {
  return std::make_unique<Recorded>(context);
}

}  // namespace adc
