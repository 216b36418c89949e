// Operators that only look at the same numbers differently: no data moves.
#pragma once

#include "tensor.hpp"

namespace adc::op {

/// Another shape for the same numbers. In `wanted`, -1 stands for "what remains", and 0 for "as in
/// the input" unless `zero_is_empty`.
template <class T>
View<T> reshape(View<T> x, const Shape& wanted, bool zero_is_empty = false) {
  Shape shape = wanted;
  int unknown = -1;
  Index known = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 0 && !zero_is_empty) {
      require(i < x.rank(), "Reshape: 0 beyond the input's rank");
      shape[i] = x.dim(i);
    }
    if (shape[i] == -1) {
      require(unknown < 0, "Reshape: two -1");
      unknown = i;
    } else {
      require(shape[i] >= 0, "Reshape: negative size");
      known = checked_product(known, shape[i]);
    }
  }
  if (unknown >= 0) {
    require(known > 0 && x.size() % known == 0, "Reshape: -1 does not come out even");
    shape[unknown] = x.size() / known;
  }
  if (shape.size() != x.size()) {
    fail("Reshape: " + x.shape().text() + " to " + shape.text());
  }
  return {x.data(), shape};
}

/// A shape held in a tensor.
inline Shape to_shape(View<Index> values) {
  require(values.rank() <= 1 && values.size() <= kMaxRank, "not a shape");
  Shape shape;
  for (Index i = 0; i < values.size(); ++i) shape.push_back(values[i]);
  return shape;
}

template <class T>
View<T> squeeze(View<T> x, const Shape& axes) {
  std::array<bool, kMaxRank> drop{};
  for (const Index axis : axes) {
    const int a = wrap_axis(axis, x.rank());
    require(x.dim(a) == 1, "Squeeze: the dimension is not 1");
    drop[static_cast<std::size_t>(a)] = true;
  }
  Shape shape;
  for (int i = 0; i < x.rank(); ++i) {
    if (!drop[static_cast<std::size_t>(i)]) shape.push_back(x.dim(i));
  }
  return {x.data(), shape};
}

/// Without axes: every dimension of size one goes.
template <class T>
View<T> squeeze(View<T> x) {
  Shape shape;
  for (int i = 0; i < x.rank(); ++i) {
    if (x.dim(i) != 1) shape.push_back(x.dim(i));
  }
  return {x.data(), shape};
}

template <class T>
View<T> unsqueeze(View<T> x, const Shape& axes) {
  const int rank = x.rank() + axes.rank();
  require(rank <= kMaxRank, "rank over 8");
  std::array<bool, kMaxRank> added{};
  for (const Index axis : axes) {
    const auto a = static_cast<std::size_t>(wrap_axis(axis, rank));
    require(!added[a], "Unsqueeze: an axis twice");
    added[a] = true;
  }
  Shape shape;
  int from = 0;
  for (int i = 0; i < rank; ++i) {
    shape.push_back(added[static_cast<std::size_t>(i)] ? 1 : x.dim(from++));
  }
  return {x.data(), shape};
}

/// Two dimensions: those before `axis`, and the rest.
template <class T>
View<T> flatten(View<T> x, Index axis) {
  const Index a = axis < 0 ? axis + x.rank() : axis;
  require(a >= 0 && a <= x.rank(), "Flatten: axis out of range");
  const int split = static_cast<int>(a);
  return {x.data(), Shape{x.shape().product(0, split), x.shape().product(split, x.rank())}};
}

/// The dimensions [start, end) of x as a tensor.
template <class T>
View<Index> shape_of(Out<Index> out, View<T> x, Index start, Index end) {
  const Index rank = x.rank();
  const auto bound = [rank](Index i) {
    return std::min(std::max(i < 0 ? i + rank : i, Index{0}), rank);
  };
  const Index first = bound(start);
  const Index last = std::max(bound(end), first);
  const Shape shape{last - first};
  Index* y = out.make(shape);
  for (Index i = first; i < last; ++i) *y++ = x.dim(static_cast<int>(i));
  return {y - (last - first), shape};
}

template <class T>
View<Index> size_of(Out<Index> out, View<T> x) {
  Index* y = out.make(Shape{});
  *y = x.size();
  return {y, Shape{}};
}

/// One index along `axis`, where all dimensions before it are 1: the dimension disappears.
template <class T>
View<T> view_row(View<T> x, Index position, Index axis) {
  const int a = wrap_axis(axis, x.rank());
  const Index n = x.dim(a);
  const Index i = position < 0 ? position + n : position;
  require(i >= 0 && i < n, "Gather: index out of range");
  require(x.shape().product(0, a) == 1, "Gather: not contiguous");
  Shape shape;
  for (int d = 0; d < x.rank(); ++d) {
    if (d != a) shape.push_back(x.dim(d));
  }
  return {x.data() + i * x.shape().product(a + 1, x.rank()), shape};
}

/// Indices [start, end) along `axis`, where all dimensions before it are 1 (numpy's clamping).
template <class T>
View<T> view_range(View<T> x, Index start, Index end, Index axis) {
  const int a = wrap_axis(axis, x.rank());
  const Index n = x.dim(a);
  const auto clamp = [n](Index i) {
    if (i < 0) i = i < -n ? 0 : i + n;
    return std::min(i, n);
  };
  const Index first = clamp(start);
  const Index last = std::max(clamp(end), first);
  require(x.shape().product(0, a) == 1, "Slice: not contiguous");
  Shape shape = x.shape();
  shape[a] = last - first;
  return {x.data() + first * x.shape().product(a + 1, x.rank()), shape};
}

/// Stands for an input that was not given.
template <class T>
View<T> absent() {
  return {nullptr, Shape{0}};
}

/// A copy in a place of its own (loop-carried values, results of branches).
template <class T>
View<T> keep(Out<T> out, View<T> x) {
  T* y = out.make(x.shape());
  if (y != x.data()) copy_elements(x.data(), x.size(), y);
  return {y, x.shape()};
}

}  // namespace adc::op
