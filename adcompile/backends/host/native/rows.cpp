#include "rows.hpp"

namespace adc {

namespace {

std::size_t row_bytes(const AnyView& tensor) {
  const Index rows = tensor.shape[0];
  return rows == 0 ? 0 : tensor.bytes() / static_cast<std::size_t>(rows);
}

class ByRows final : public RowStage {
 public:
  ByRows(std::unique_ptr<Stage> inner, const PartInfo& part)
      : RowStage(inner->name(), inner->inputs(), inner->outputs()),
        inner_(std::move(inner)),
        sizes_(part.row_sizes),
        padded_(inputs().size()),
        fed_(inputs().size()),
        got_(outputs().size()) {
    std::sort(sizes_.begin(), sizes_.end());
  }

  [[nodiscard]] std::string placement() const override { return inner_->placement(); }

 private:
  void run_rows(const AnyView* in, Index rows, AnyView* out) override {
    if (sizes_.empty()) {
      inner_->run(in, out);
      for (std::size_t i = 0; i < outputs().size(); ++i) check_rows(out[i], rows);
      return;
    }
    const Index largest = sizes_.back();
    for (Index start = 0; start < rows; start += largest) {
      const Index count = std::min(largest, rows - start);
      const Index batch = *std::lower_bound(sizes_.begin(), sizes_.end(), count);
      feed(in, start, count, batch);
      inner_->run(fed_.data(), got_.data());
      collect(start, count, batch, rows, out);
    }
  }

  void check_rows(const AnyView& tensor, Index rows) const {
    if (tensor.shape.rank() > 0 && tensor.shape[0] == rows) return;
    fail(std::string("part ") + name() + ": returned " + tensor.shape.text() + " for " +
         std::to_string(rows) + " rows");
  }

  /// Rows [start, start + count), padded to `batch`.
  void feed(const AnyView* in, Index start, Index count, Index batch) {
    for (std::size_t i = 0; i < fed_.size(); ++i) {
      fed_[i] = by_row(i) ? slice(in[i], start, count) : in[i];
      if (!by_row(i) || batch == count) continue;
      const std::size_t real = fed_[i].bytes();
      fed_[i].shape[0] = batch;
      const std::size_t whole = fed_[i].bytes();
      std::byte* to = padded_[i].reserve(whole);
      std::memcpy(to, fed_[i].data, real);
      std::memset(to + real, 0, whole - real);
      fed_[i].data = to;
    }
  }

  void collect(Index start, Index count, Index batch, Index rows, AnyView* out) {
    for (std::size_t i = 0; i < got_.size(); ++i) {
      check_rows(got_[i], batch);
      const std::size_t bytes = row_bytes(got_[i]);
      std::byte* to = joined(i, rows, start, bytes);
      std::memcpy(to, got_[i].data, bytes * static_cast<std::size_t>(count));
      Shape shape = got_[i].shape;
      shape[0] = rows;
      out[i] = AnyView(got_[i].dtype, shape, joined(i, rows, 0, bytes));
    }
  }

  std::unique_ptr<Stage> inner_;
  std::vector<Index> sizes_;
  std::vector<Buffer> padded_;
  std::vector<AnyView> fed_;
  std::vector<AnyView> got_;
};

}  // namespace

RowStage::RowStage(std::string name, std::vector<Port> inputs, std::vector<Port> outputs)
    : name_(std::move(name)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      joined_(outputs_.size()) {
  for (const Port& port : inputs_) {
    by_row_.push_back(!port.dims.empty() && port.dims[0] == kFree);
  }
}

void RowStage::run(const AnyView* in, AnyView* out) {
  const Index rows = count_rows(in);
  if (rows == 0) return nothing(out);
  run_rows(in, rows, out);
}

AnyView RowStage::slice(const AnyView& tensor, Index start, Index count) {
  const std::size_t skipped = row_bytes(tensor) * static_cast<std::size_t>(start);
  Shape shape = tensor.shape;
  shape[0] = count;
  return {tensor.dtype, shape, static_cast<const std::byte*>(tensor.data) + skipped};
}

std::byte* RowStage::joined(std::size_t i, Index rows, Index start, std::size_t bytes) {
  const std::size_t used = bytes * static_cast<std::size_t>(start);
  return joined_[i].extend(bytes * static_cast<std::size_t>(rows), used) + used;
}

Index RowStage::count_rows(const AnyView* in) const {
  Index rows = -1;
  for (std::size_t i = 0; i < by_row_.size(); ++i) {
    if (!by_row_[i]) continue;
    require(in[i].shape.rank() > 0, "rows of a scalar");
    if (rows >= 0 && rows != in[i].shape[0]) {
      fail("part " + name_ + ": inputs have different numbers of rows");
    }
    rows = in[i].shape[0];
  }
  if (rows < 0) fail("part " + name_ + ": no input has rows");
  return rows;
}

void RowStage::nothing(AnyView* out) {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Shape shape;
    for (const Index d : outputs_[i].dims) shape.push_back(d < 0 ? 0 : d);
    require(shape.rank() > 0, "rows of a scalar");
    shape[0] = 0;
    out[i] = AnyView(outputs_[i].dtype, shape, joined_[i].reserve(1));
  }
}

std::unique_ptr<Stage> by_rows(std::unique_ptr<Stage> inner, const PartInfo& part) {
  return std::make_unique<ByRows>(std::move(inner), part);
}

}  // namespace adc
