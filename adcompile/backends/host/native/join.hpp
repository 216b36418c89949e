// Joins of tensors. A piece is copied, or made where it belongs: what makes it writes into the rows of
// the joined tensor, so that no tensor is made first and copied then.
#pragma once

#include "move.hpp"

namespace adc::op {

/// Where a piece of a larger tensor goes: its elements, in order, `run` at a time, `pitch` apart.
template <class T>
class Rows {
 public:
  Rows(T* y, Index run, Index pitch) : y_(y), run_(run), pitch_(pitch) {}
  /// All of a tensor of its own.
  Rows(T* y, Index size) : Rows(y, size, size) {}

  [[nodiscard]] bool dense() const { return run_ == pitch_; }
  [[nodiscard]] Index run() const { return run_; }
  [[nodiscard]] Index pitch() const { return pitch_; }
  /// Place of element i.
  [[nodiscard]] T* at(Index i) const {
    return dense() ? y_ + i : y_ + i / run_ * pitch_ + i % run_;
  }
  /// Calls f(place, k, n) for each stretch of elements [first, first + count) that lie side by side:
  /// n of them, from first + k on.
  template <class F>
  void each(Index first, Index count, F f) const {
    if (dense()) return f(y_ + first, Index{0}, count);
    Index column = first % run_;
    T* row = y_ + first / run_ * pitch_;
    for (Index k = 0; k < count; row += pitch_, column = 0) {
      const Index n = std::min(run_ - column, count - k);
      f(row + column, k, n);
      k += n;
    }
  }
  /// Copies elements [first, first + count).
  void put(Index first, const T* from, Index count) const {
    if (run_ == 1 && !dense()) {
      for (Index i = 0; i < count; ++i) y_[(first + i) * pitch_] = from[i];
      return;
    }
    each(first, count, [from](T* to, Index k, Index n) { copy_elements(from + k, n, to); });
  }

 private:
  T* y_;
  Index run_;
  Index pitch_;
};

namespace detail {

/// A piece has a `shape()` and can `write(rows)`; a tensor that is there is copied.
template <class T, class Piece>
void write_piece(const Piece& piece, const Rows<T>& y) {
  if constexpr (std::is_same_v<Piece, View<T>>) {
    y.put(0, piece.data(), piece.size());
  } else {
    piece.write(y);
  }
}

}  // namespace detail

/// Joins pieces along `axis`: tensors, or what stands for one that is not made yet.
template <class T, class... Pieces>
View<T> concat(Out<T> out, Index axis, const Pieces&... pieces) {
  const std::array<Shape, sizeof...(Pieces)> shapes{pieces.shape()...};
  const int a = wrap_axis(axis, shapes[0].rank());
  Shape shape = shapes[0];
  shape[a] = 0;
  for (const Shape& part : shapes) {
    require(part.rank() == shape.rank(), "Concat: ranks differ");
    for (int i = 0; i < shape.rank(); ++i) {
      require(i == a || part[i] == shape[i], "Concat: shapes differ off the axis");
    }
    shape[a] += part[a];
  }
  T* y = out.make(shape);
  const Index inner = shape.product(a + 1, shape.rank());
  // One row: the pieces lie one after the other, each without gaps.
  const bool one = shape.product(0, a) == 1;
  Index at = 0;
  const auto write = [&](const auto& piece) {
    const Shape part = piece.shape();
    const Index run = part[a] * inner;
    if (part.size() > 0) {
      detail::write_piece<T>(piece, Rows<T>(y + at, run, one ? run : shape[a] * inner));
    }
    at += run;
  };
  (write(pieces), ...);
  return {y, shape};
}

/// Joins along axis 0 into a growing buffer. When `x` already lies at the buffer's start, only
/// `tail` is copied: a loop that appends once per trip costs time linear in the result.
template <class T>
View<T> append(Out<T> out, View<T> x, View<T> tail) {
  require(x.rank() == tail.rank() && x.rank() > 0, "Concat: ranks differ");
  Shape shape = x.shape();
  for (int i = 1; i < shape.rank(); ++i) {
    require(shape[i] == tail.dim(i), "Concat: shapes differ off the axis");
  }
  shape[0] += tail.dim(0);
  const auto bytes = [](Index n) { return static_cast<std::size_t>(checked_product(n, sizeof(T))); };
  Buffer& buffer = *out.buffer();
  const bool in_place = reinterpret_cast<const std::byte*>(x.data()) == buffer.data();
  auto* y = reinterpret_cast<T*>(in_place ? buffer.extend(bytes(shape.size()), bytes(x.size()))
                                          : buffer.reserve(bytes(shape.size())));
  if (!in_place) copy_elements(x.data(), x.size(), y);
  copy_elements(tail.data(), tail.size(), y + x.size());
  return {y, shape};
}

}  // namespace adc::op
