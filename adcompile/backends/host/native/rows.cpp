#include "engine.hpp"

namespace adc {

namespace {

/// One call of the device: rows [start, start + count), padded to `batch`.
struct Piece {
  Index start;
  Index count;
  Index batch;
};

std::vector<Piece> cut(Index rows, const std::vector<Index>& sizes) {
  std::vector<Piece> pieces;
  const Index largest = sizes.back();
  for (Index start = 0; start < rows; start += largest) {
    const Index count = std::min(largest, rows - start);
    Index batch = largest;
    for (const Index size : sizes) {
      if (size >= count) {
        batch = size;
        break;
      }
    }
    pieces.push_back({start, count, batch});
  }
  return pieces;
}

std::size_t row_bytes(const AnyView& tensor) {
  const Index rows = tensor.shape[0];
  return rows == 0 ? 0 : tensor.bytes() / static_cast<std::size_t>(rows);
}

class ByRows final : public Stage {
 public:
  ByRows(std::unique_ptr<Stage> inner, const PartInfo& part)
      : inner_(std::move(inner)), sizes_(part.row_sizes) {
    std::sort(sizes_.begin(), sizes_.end());
    for (const Port& port : inner_->inputs()) {
      row_input_.push_back(!port.dims.empty() && port.dims[0] == kFree);
    }
    padded_.resize(inner_->inputs().size());
    joined_.resize(inner_->outputs().size());
    fed_.resize(inner_->inputs().size());
    got_.resize(inner_->outputs().size());
  }

  [[nodiscard]] const char* name() const override { return inner_->name(); }
  [[nodiscard]] const std::vector<Port>& inputs() const override { return inner_->inputs(); }
  [[nodiscard]] const std::vector<Port>& outputs() const override { return inner_->outputs(); }

  void run(const AnyView* in, AnyView* out) override {
    const Index rows = count_rows(in);
    if (rows == 0) return nothing(out);
    if (sizes_.empty()) return inner_->run(in, out);
    std::size_t made = 0;
    for (const Piece& piece : cut(rows, sizes_)) {
      feed(in, piece);
      inner_->run(fed_.data(), got_.data());
      collect(piece, rows, made);
      made += static_cast<std::size_t>(piece.count);
    }
    for (std::size_t i = 0; i < got_.size(); ++i) {
      Shape shape = got_[i].shape;
      shape[0] = rows;
      out[i] = AnyView(got_[i].dtype, shape, joined_[i].data());
    }
  }

 private:
  Index count_rows(const AnyView* in) const {
    Index rows = -1;
    for (std::size_t i = 0; i < row_input_.size(); ++i) {
      if (!row_input_[i]) continue;
      require(in[i].shape.rank() > 0, "rows of a scalar");
      if (rows >= 0 && rows != in[i].shape[0]) {
        fail(std::string("part ") + name() + ": inputs have different numbers of rows");
      }
      rows = in[i].shape[0];
    }
    if (rows < 0) fail(std::string("part ") + name() + ": no input has rows");
    return rows;
  }

  void nothing(AnyView* out) {
    for (std::size_t i = 0; i < joined_.size(); ++i) {
      const Port& port = outputs()[i];
      Shape shape;
      for (const Index d : port.dims) shape.push_back(d < 0 ? 0 : d);
      require(shape.rank() > 0, "rows of a scalar");
      shape[0] = 0;
      out[i] = AnyView(port.dtype, shape, joined_[i].reserve(1));
    }
  }

  void feed(const AnyView* in, const Piece& piece) {
    for (std::size_t i = 0; i < fed_.size(); ++i) {
      fed_[i] = in[i];
      if (!row_input_[i]) continue;
      const std::size_t bytes = row_bytes(in[i]);
      const auto* from = static_cast<const std::byte*>(in[i].data) +
                         bytes * static_cast<std::size_t>(piece.start);
      fed_[i].shape[0] = piece.batch;
      fed_[i].data = from;
      if (piece.batch == piece.count) continue;
      const std::size_t real = bytes * static_cast<std::size_t>(piece.count);
      const std::size_t whole = bytes * static_cast<std::size_t>(piece.batch);
      std::byte* to = padded_[i].reserve(whole);
      std::memcpy(to, from, real);
      std::memset(to + real, 0, whole - real);
      fed_[i].data = to;
    }
  }

  void collect(const Piece& piece, Index rows, std::size_t made) {
    for (std::size_t i = 0; i < got_.size(); ++i) {
      if (got_[i].shape.rank() == 0 || got_[i].shape[0] != piece.batch) {
        fail(std::string("part ") + name() + ": returned " + got_[i].shape.text() + " for " +
             std::to_string(piece.batch) + " rows");
      }
      const std::size_t bytes = row_bytes(got_[i]);
      std::byte* to = joined_[i].extend(bytes * static_cast<std::size_t>(rows), bytes * made);
      std::memcpy(to + bytes * made, got_[i].data, bytes * static_cast<std::size_t>(piece.count));
    }
  }

  std::unique_ptr<Stage> inner_;
  std::vector<Index> sizes_;
  std::vector<bool> row_input_;
  std::vector<Buffer> padded_;
  std::vector<Buffer> joined_;
  std::vector<AnyView> fed_;
  std::vector<AnyView> got_;
};

}  // namespace

std::unique_ptr<Stage> by_rows(std::unique_ptr<Stage> inner, const PartInfo& part) {
  return std::make_unique<ByRows>(std::move(inner), part);
}

}  // namespace adc
