// Operators that move numbers by computed positions: gather, scatter, search for non-zeros.
#pragma once

#include <string>

#include "join.hpp"

namespace adc::op {

/// Rows of x along `axis`, chosen by `indices` of any shape: a piece of a join, or asked for one by one.
template <class T, class I>
class Gathered {
 public:
  Gathered(View<T> x, View<I> indices, Index axis)
      : x_(x), indices_(indices), axis_(wrap_axis(axis, x.rank())) {
    for (int i = 0; i < axis_; ++i) shape_.push_back(x.dim(i));
    for (const Index d : indices.shape()) shape_.push_back(d);
    for (int i = axis_ + 1; i < x.rank(); ++i) shape_.push_back(x.dim(i));
  }

  [[nodiscard]] const Shape& shape() const { return shape_; }
  /// Chosen row k of block `o` of the dimensions before the axis.
  [[nodiscard]] const T* row(Index o, Index k) const {
    const Index n = x_.dim(axis_);
    return x_.data() + (o * n + detail::wrap_index(indices_[k], n)) * inner();
  }
  void write(const Rows<T>& y) const {
    const Index outer = x_.shape().product(0, axis_);
    const Index width = inner();
    const Index count = indices_.size();
    if (width == 1 && y.dense()) {
      T* to = y.at(0);
      for (Index o = 0; o < outer; ++o) {
        const T* block = x_.data() + o * x_.dim(axis_);
        for (Index k = 0; k < count; ++k) {
          *to++ = block[detail::wrap_index(indices_[k], x_.dim(axis_))];
        }
      }
      return;
    }
    for (Index o = 0; o < outer; ++o) {
      for (Index k = 0; k < count; ++k) y.put((o * count + k) * width, row(o, k), width);
    }
  }

 private:
  [[nodiscard]] Index inner() const { return x_.shape().product(axis_ + 1, x_.rank()); }

  View<T> x_;
  View<I> indices_;
  int axis_;
  Shape shape_;
};

template <class T, class I>
Gathered<T, I> gathered(View<T> x, View<I> indices, Index axis) {
  return {x, indices, axis};
}

/// The same as a tensor.
template <class T, class I>
View<T> gather(Out<T> out, View<T> x, View<I> indices, Index axis) {
  const Gathered<T, I> chosen(x, indices, axis);
  T* y = out.make(chosen.shape());
  if (chosen.shape().size() > 0) chosen.write(Rows<T>(y, chosen.shape().size()));
  return {y, chosen.shape()};
}

/// One index along `axis`: the dimension disappears.
template <class T>
View<T> pick(Out<T> out, View<T> x, Index position, Index axis) {
  const View<Index> index(&position, Shape{});
  return gather(out, x, index, axis);
}

/// Per element of `indices`: the element of x at the same place, except along `axis`.
template <class T, class I>
View<T> gather_elements(Out<T> out, View<T> x, View<I> indices, Index axis) {
  const int a = wrap_axis(axis, x.rank());
  const auto along = static_cast<std::size_t>(a);
  require(indices.rank() == x.rank(), "GatherElements: ranks differ");
  const Shape shape = indices.shape();
  for (int i = 0; i < x.rank(); ++i) {
    require(i == a || shape[i] <= x.dim(i), "GatherElements: indices larger than the data");
  }
  T* y = out.make(shape);
  const Axes stride = strides_of(x.shape());
  const Index size = shape.size();
  Axes at{};
  for (Index i = 0; i < size; ++i) {
    Index source = detail::wrap_index(indices[i], x.dim(a)) * stride[along];
    for (std::size_t d = 0; d < static_cast<std::size_t>(shape.rank()); ++d) {
      if (d != along) source += at[d] * stride[d];
    }
    y[i] = x[source];
    for (int d = shape.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < shape[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y, shape};
}

/// Slices of x addressed by the last dimension of `indices`, after `batch` common dimensions.
template <class T, class I>
View<T> gather_nd(Out<T> out, View<T> x, View<I> indices, Index batch) {
  require(indices.rank() > 0, "GatherND: indices need a dimension");
  const int b = static_cast<int>(batch);
  const Index depth = indices.dim(indices.rank() - 1);
  require(b + depth <= x.rank() && b < indices.rank(), "GatherND: index longer than the rank");
  Shape shape;
  for (int i = 0; i < indices.rank() - 1; ++i) shape.push_back(indices.dim(i));
  const int past = b + static_cast<int>(depth);
  for (int i = past; i < x.rank(); ++i) shape.push_back(x.dim(i));
  T* y = out.make(shape);
  const Index batches = x.shape().product(0, b);
  require(indices.shape().product(0, b) == batches, "GatherND: batch dimensions differ");
  const Index block = x.shape().product(b, x.rank());
  const Index run = x.shape().product(past, x.rank());
  const Index per_batch = indices.shape().product(b, indices.rank() - 1);
  const I* index = indices.data();
  for (Index n = 0; n < batches * per_batch; ++n) {
    Index at = 0;
    for (int d = 0; d < static_cast<int>(depth); ++d) {
      at = at * x.dim(b + d) + detail::wrap_index(*index++, x.dim(b + d));
    }
    const T* from = x.data() + (n / per_batch) * block + at * run;
    copy_elements(from, run, y + n * run);
  }
  return {y, shape};
}

/// How a scattered element meets the one that is there.
struct Replace {
  template <class T>
  T operator()(T, T update) const {
    return update;
  }
};
struct AddTo {
  template <class T>
  T operator()(T old, T update) const {
    if constexpr (std::is_same_v<T, bool>) {
      return old || update;
    } else {
      return math::add(old, update);
    }
  }
};
struct MultiplyBy {
  template <class T>
  T operator()(T old, T update) const {
    if constexpr (std::is_same_v<T, bool>) {
      return old && update;
    } else {
      return math::mul(old, update);
    }
  }
};
struct KeepLarger {
  template <class T>
  T operator()(T old, T update) const {
    return math::max(old, update);
  }
};
struct KeepSmaller {
  template <class T>
  T operator()(T old, T update) const {
    return math::min(old, update);
  }
};

/// x with single elements replaced: place of the update, except along `axis`.
template <class T, class I, class F>
View<T> scatter_elements(Out<T> out, View<T> x, View<I> indices, View<T> updates, Index axis, F f) {
  const int a = wrap_axis(axis, x.rank());
  const auto along = static_cast<std::size_t>(a);
  require(indices.shape() == updates.shape(), "ScatterElements: indices and updates differ");
  require(indices.rank() == x.rank(), "ScatterElements: ranks differ");
  for (int i = 0; i < x.rank(); ++i) {
    require(i == a || indices.dim(i) <= x.dim(i), "ScatterElements: indices too large");
  }
  T* y = out.make(x.shape());
  if (y != x.data()) copy_elements(x.data(), x.size(), y);
  const Axes stride = strides_of(x.shape());
  const Shape& shape = indices.shape();
  const Index size = shape.size();
  Axes at{};
  for (Index i = 0; i < size; ++i) {
    Index place = detail::wrap_index(indices[i], x.dim(a)) * stride[along];
    for (std::size_t d = 0; d < static_cast<std::size_t>(shape.rank()); ++d) {
      if (d != along) place += at[d] * stride[d];
    }
    y[place] = f(y[place], updates[i]);
    for (int d = shape.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < shape[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y, x.shape()};
}

/// x with whole rows (slices of axis 0) replaced; `rows` has one index per slice of `updates`.
template <class T, class I, class F>
View<T> scatter_rows(Out<T> out, View<T> x, View<I> rows, View<T> updates, F f) {
  require(x.rank() == updates.rank() && x.rank() > 0, "scatter rows: ranks differ");
  require(rows.size() == updates.dim(0), "scatter rows: one index per row");
  for (int i = 1; i < x.rank(); ++i) {
    require(updates.dim(i) <= x.dim(i), "scatter rows: updates too large");
  }
  bool whole = true;
  for (int i = 1; i < x.rank(); ++i) whole = whole && updates.dim(i) == x.dim(i);
  require(whole, "scatter rows: rows differ in shape");
  T* y = out.make(x.shape());
  if (y != x.data()) copy_elements(x.data(), x.size(), y);
  const Index run = x.shape().product(1, x.rank());
  for (Index r = 0; r < rows.size(); ++r) {
    T* to = y + detail::wrap_index(rows[r], x.dim(0)) * run;
    const T* from = updates.data() + r * run;
    if constexpr (std::is_same_v<F, Replace>) {
      copy_elements(from, run, to);
    } else {
      for (Index i = 0; i < run; ++i) to[i] = f(to[i], from[i]);
    }
  }
  return {y, x.shape()};
}

/// x with slices replaced, each addressed by the last dimension of `indices`.
template <class T, class I, class F>
View<T> scatter_nd(Out<T> out, View<T> x, View<I> indices, View<T> updates, F f) {
  require(indices.rank() > 0, "ScatterND: indices need a dimension");
  const int depth = static_cast<int>(indices.dim(indices.rank() - 1));
  require(depth <= x.rank(), "ScatterND: index longer than the rank");
  const Index run = x.shape().product(depth, x.rank());
  const Index count = indices.shape().product(0, indices.rank() - 1);
  require(updates.size() == checked_product(count, run), "ScatterND: updates do not fit");
  T* y = out.make(x.shape());
  if (y != x.data()) copy_elements(x.data(), x.size(), y);
  const I* index = indices.data();
  const T* from = updates.data();
  for (Index n = 0; n < count; ++n, from += run) {
    Index at = 0;
    for (int d = 0; d < depth; ++d) at = at * x.dim(d) + detail::wrap_index(*index++, x.dim(d));
    T* to = y + at * run;
    for (Index i = 0; i < run; ++i) to[i] = f(to[i], from[i]);
  }
  return {y, x.shape()};
}

/// Positions of the non-zero elements, one column each: [rank, count].
template <class T>
View<Index> nonzero(Out<Index> out, View<T> x) {
  const Index size = x.size();
  Index count = 0;
  for (Index i = 0; i < size; ++i) count += math::cast<bool>(x[i]) ? 1 : 0;
  const int rank = std::max(x.rank(), 1);
  const Shape shape{x.rank() == 0 ? 0 : rank, count};
  Index* y = out.make(shape);
  if (shape.size() == 0) return {y, shape};
  Index k = 0;
  if (rank == 1) {
    for (Index i = 0; i < size; ++i) {
      if (math::cast<bool>(x[i])) y[k++] = i;
    }
    return {y, shape};
  }
  Axes at{};
  for (Index i = 0; i < size; ++i) {
    if (math::cast<bool>(x[i])) {
      for (int d = 0; d < rank; ++d) y[d * count + k] = at[static_cast<std::size_t>(d)];
      ++k;
    }
    for (int d = rank - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < x.dim(d)) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y, shape};
}

/// Slices of x along `axis` where `keep` is true.
template <class T>
View<T> compress(Out<T> out, View<T> x, View<bool> keep, Index axis) {
  const int a = wrap_axis(axis, x.rank());
  const Index n = std::min(keep.size(), x.dim(a));
  Index count = 0;
  for (Index i = 0; i < n; ++i) count += keep[i] ? 1 : 0;
  Shape shape = x.shape();
  shape[a] = count;
  T* y = out.make(shape);
  const Index outer = x.shape().product(0, a);
  const Index inner = x.shape().product(a + 1, x.rank());
  for (Index o = 0; o < outer; ++o) {
    for (Index i = 0; i < n; ++i) {
      if (!keep[i]) continue;
      copy_elements(x.data() + (o * x.dim(a) + i) * inner, inner, y);
      y += inner;
    }
  }
  return {y - shape.size(), shape};
}

/// 1 (or other values) at the given positions of a new axis.
template <class T, class I>
View<T> one_hot(Out<T> out, View<I> indices, Index depth, View<T> off_on, Index axis) {
  require(depth > 0 && off_on.size() == 2, "OneHot: needs a depth and two values");
  const int a = wrap_axis(axis, indices.rank() + 1);
  Shape shape;
  for (int i = 0; i < a; ++i) shape.push_back(indices.dim(i));
  shape.push_back(depth);
  for (int i = a; i < indices.rank(); ++i) shape.push_back(indices.dim(i));
  T* y = out.make(shape);
  std::fill_n(y, shape.size(), off_on[0]);
  const Index inner = indices.shape().product(a, indices.rank());
  for (Index i = 0; i < indices.size(); ++i) {
    Index k = math::cast<Index>(indices[i]);
    if (k < -depth || k >= depth) continue;  // the standard: such a row stays off
    if (k < 0) k += depth;
    y[(i / inner * depth + k) * inner + i % inner] = off_on[1];
  }
  return {y, shape};
}

}  // namespace adc::op
