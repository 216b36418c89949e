// Operators that copy numbers to other places: slices, pieces, repetitions.
#pragma once

#include "map.hpp"
#include "math.hpp"
#include "tensor.hpp"
#include "threads.hpp"

namespace adc::op {

using Axes = std::array<Index, kMaxRank>;

/// Element strides of a dense tensor.
inline Axes strides_of(const Shape& shape) {
  Axes strides{};
  Index step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<std::size_t>(i)] = step;
    step *= shape[i];
  }
  return strides;
}

namespace detail {

/// Copies a strided box into dense memory; `at` is the box's first element.
template <class T>
void copy_box(const T* at, const Axes& stride, const Shape& box, T* y) {
  if (box.size() == 0) return;
  int rank = box.rank();
  // The longest dense tail is copied in one go.
  Index run = 1;
  while (rank > 0 && (box[rank - 1] == 1 || stride[static_cast<std::size_t>(rank - 1)] == run)) {
    run *= box[--rank];
  }
  if (rank == 0) return copy_elements(at, run, y);
  const Index inner = box[rank - 1];
  const Index step = stride[static_cast<std::size_t>(rank - 1)];
  Axes index{};
  while (true) {
    if (run == 1) {
      for (Index i = 0; i < inner; ++i) y[i] = at[i * step];
    } else {
      for (Index i = 0; i < inner; ++i) copy_elements(at + i * step, run, y + i * run);
    }
    y += inner * run;
    int d = rank - 2;
    for (; d >= 0; --d) {
      const auto u = static_cast<std::size_t>(d);
      at += stride[u];
      if (++index[u] < box[d]) break;
      at -= stride[u] * box[d];
      index[u] = 0;
    }
    if (d < 0) return;
  }
}

inline Index wrap_index(Index i, Index n) {
  if (i < -n || i >= n) fail("index " + std::to_string(i) + " out of " + std::to_string(n));
  return i < 0 ? i + n : i;
}

}  // namespace detail

/// Start, end and step along some axes, numpy's rules (negative counts from the end, clamped).
template <class T>
View<T> slice(Out<T> out, View<T> x, const Shape& starts, const Shape& ends, const Shape& axes,
              const Shape& steps) {
  Shape box = x.shape();
  Axes stride = strides_of(x.shape());
  const T* at = x.data();
  for (int k = 0; k < axes.rank(); ++k) {
    const int a = wrap_axis(axes[k], x.rank());
    const auto u = static_cast<std::size_t>(a);
    const Index n = x.dim(a);
    const Index step = steps.rank() == 0 ? 1 : steps[k];
    require(step != 0, "Slice: step 0");
    const auto clamp = [n](Index i, Index low, Index high) {
      if (i < 0) i = i < -n ? -1 - n : i + n;  // far below zero must not wrap around
      return std::min(std::max(i, low), high);
    };
    const Index first = step > 0 ? clamp(starts[k], 0, n) : clamp(starts[k], 0, n - 1);
    const Index last = step > 0 ? clamp(ends[k], 0, n) : clamp(ends[k], -1, n - 1);
    const Index span = step > 0 ? last - first : first - last;
    const Index pace = step > 0 ? step : (step == std::numeric_limits<Index>::min() ? n + 1 : -step);
    box[a] = span <= 0 ? 0 : 1 + (span - 1) / pace;
    if (box[a] > 0) at += first * stride[u];
    stride[u] *= box[a] > 1 ? step : 1;
  }
  T* y = out.make(box);
  detail::copy_box(at, stride, box, y);
  return {y, box};
}

/// Pieces of the given lengths along `axis`, one call per piece.
template <class T>
View<T> split(Out<T> out, View<T> x, Index axis, Index start, Index length) {
  const int a = wrap_axis(axis, x.rank());
  require(start >= 0 && length >= 0 && start + length <= x.dim(a), "Split: out of range");
  return slice(out, x, Shape{start}, Shape{start + length}, Shape{a}, Shape{});
}

/// Repeats dimensions of size one.
template <class T>
View<T> expand(Out<T> out, View<T> x, const Shape& wanted) {
  const Shape shape = broadcast(x.shape(), wanted);
  T* y = out.make(shape);
  Axes stride{};
  const Axes from = strides_of(x.shape());
  const int lead = shape.rank() - x.rank();
  for (int i = 0; i < x.rank(); ++i) {
    const auto u = static_cast<std::size_t>(i);
    stride[static_cast<std::size_t>(i + lead)] = x.dim(i) == 1 ? 0 : from[u];
  }
  detail::copy_box(x.data(), stride, shape, y);
  return {y, shape};
}

/// Whole copies side by side.
template <class T>
View<T> tile(Out<T> out, View<T> x, const Shape& repeats) {
  require(repeats.rank() == x.rank(), "Tile: wrong number of repeats");
  Shape shape = x.shape();
  for (int i = 0; i < x.rank(); ++i) {
    require(repeats[i] >= 0, "Tile: negative repeat");
    shape[i] = checked_product(shape[i], repeats[i]);
  }
  T* y = out.make(shape);
  const Index size = shape.size();
  const Axes from = strides_of(x.shape());
  const int rank = shape.rank();
  Axes at{};
  for (Index i = 0; i < size; ++i) {
    Index source = 0;
    for (int d = 0; d < rank; ++d) {
      const auto u = static_cast<std::size_t>(d);
      source += (at[u] % x.dim(d)) * from[u];
    }
    y[i] = x[source];
    for (int d = rank - 1; d >= 0; --d) {
      const auto u = static_cast<std::size_t>(d);
      if (++at[u] < shape[d]) break;
      at[u] = 0;
    }
  }
  return {y, shape};
}

template <class T>
View<T> filled(Out<T> out, const Shape& shape, T value) {
  for (const Index d : shape) require(d >= 0, "ConstantOfShape: negative size");
  T* y = out.make(shape);
  std::fill_n(y, shape.size(), value);
  return {y, shape};
}

/// start, start + delta, … up to (not including) limit.
template <class T>
View<T> range(Out<T> out, T start, T limit, T delta) {
  require(!(delta == T(0)), "Range: delta 0");
  const double count = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                                 static_cast<double>(delta));
  require(count < 9e15, "Range: too long");
  const Shape shape{static_cast<Index>(std::max(count, 0.0))};
  T* y = out.make(shape);
  for (Index i = 0; i < shape[0]; ++i) {
    y[i] = math::add(start, math::mul(static_cast<T>(i), delta));
  }
  return {y, shape};
}

}  // namespace adc::op
