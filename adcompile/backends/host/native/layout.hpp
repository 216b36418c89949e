// Padding, block rearrangement and other fixed patterns of places.
#pragma once

#include "move.hpp"

namespace adc::op {

/// Twice as many numbers as dimensions: begins, then ends.
struct Amounts {
  std::array<Index, 2 * kMaxRank> at{};
  int count = 0;

  Amounts(std::initializer_list<Index> values) {
    require(values.size() <= at.size(), "Pad: too many amounts");
    for (const Index v : values) at[static_cast<std::size_t>(count++)] = v;
  }
};

inline Amounts to_amounts(View<Index> values) {
  Amounts amounts{};
  require(values.size() <= 2 * kMaxRank, "Pad: too many amounts");
  for (Index i = 0; i < values.size(); ++i) {
    amounts.at[static_cast<std::size_t>(amounts.count++)] = values[i];
  }
  return amounts;
}

enum class Padding { constant, reflect, edge, wrap };

namespace detail {

/// Where output coordinate i (already shifted) looks in a dimension of size n; -1: outside.
inline Index padded_source(Index i, Index n, Padding mode) {
  if (i >= 0 && i < n) return i;
  if (mode == Padding::constant) return -1;
  require(n > 0, "Pad: nothing to repeat");
  if (mode == Padding::edge) return i < 0 ? 0 : n - 1;
  if (mode == Padding::wrap) return ((i % n) + n) % n;
  if (n == 1) return 0;
  const Index period = 2 * (n - 1);
  const Index j = ((i % period) + period) % period;
  return j < n ? j : period - j;
}

}  // namespace detail

/// Grows (or, with negative amounts, crops) dimensions.
template <class T>
View<T> pad(Out<T> out, View<T> x, const Amounts& amounts, const Shape& axes, Padding mode,
            T value) {
  const int rank = x.rank();
  const int given = axes.rank() == 0 ? rank : axes.rank();
  require(amounts.count == 2 * given, "Pad: wrong number of amounts");
  Axes begin{};
  Shape shape = x.shape();
  for (int k = 0; k < given; ++k) {
    const int a = axes.rank() == 0 ? k : wrap_axis(axes[k], rank);
    begin[static_cast<std::size_t>(a)] = amounts.at[static_cast<std::size_t>(k)];
    const Index end = amounts.at[static_cast<std::size_t>(k + given)];
    shape[a] += begin[static_cast<std::size_t>(a)] + end;
    require(shape[a] >= 0, "Pad: crops more than there is");
  }
  T* y = out.make(shape);
  if (shape.size() == 0) return {y, shape};
  if (rank == 0) {
    *y = x[0];
    return {y, shape};
  }
  const Axes from = strides_of(x.shape());
  const auto inner = static_cast<std::size_t>(rank - 1);
  const Index width = shape[rank - 1];
  const Index n = x.dim(rank - 1);
  const Index shift = begin[inner];
  // Of each row, [left, right) comes straight from the input.
  const Index left = std::min(std::max(shift, Index{0}), width);
  const Index right = std::max(std::min(shift + n, width), left);
  Axes at{};
  const Index rows = shape.product(0, rank - 1);
  for (Index r = 0; r < rows; ++r, y += width) {
    Index base = 0;
    bool outside = false;
    for (std::size_t d = 0; d < inner; ++d) {
      const Index s = detail::padded_source(at[d] - begin[d], x.dim(static_cast<int>(d)), mode);
      outside = outside || s < 0;
      base += s * from[d];
    }
    if (outside) {
      std::fill_n(y, width, value);
    } else {
      const T* row = x.data() + base;
      const auto border = [&](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
          const Index s = detail::padded_source(i - shift, n, mode);
          y[i] = s < 0 ? value : row[s];
        }
      };
      border(0, left);
      copy_elements(row + (left - shift), right - left, y + left);
      border(right, width);
    }
    for (int d = rank - 2; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < shape[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y - shape.size(), shape};
}

/// Channels to pixels. `depth_first`: the block position is the slower part of the channel.
template <class T>
View<T> depth_to_space(Out<T> out, View<T> x, Index block, bool depth_first) {
  require(x.rank() == 4 && block > 0 && x.dim(1) % (block * block) == 0,
          "DepthToSpace: channels do not divide");
  const Index c = x.dim(1) / (block * block);
  const Shape six = depth_first ? Shape{x.dim(0), block, block, c, x.dim(2), x.dim(3)}
                                : Shape{x.dim(0), c, block, block, x.dim(2), x.dim(3)};
  const Axes s = strides_of(six);
  const Shape box{x.dim(0), c, x.dim(2), block, x.dim(3), block};
  const Axes stride = depth_first ? Axes{s[0], s[3], s[4], s[1], s[5], s[2]}
                                  : Axes{s[0], s[1], s[4], s[2], s[5], s[3]};
  const Shape shape{x.dim(0), c, x.dim(2) * block, x.dim(3) * block};
  T* y = out.make(shape);
  detail::copy_box(x.data(), stride, box, y);
  return {y, shape};
}

template <class T>
View<T> space_to_depth(Out<T> out, View<T> x, Index block) {
  require(x.rank() == 4 && block > 0 && x.dim(2) % block == 0 && x.dim(3) % block == 0,
          "SpaceToDepth: size does not divide");
  const Index h = x.dim(2) / block;
  const Index w = x.dim(3) / block;
  const Axes s = strides_of(Shape{x.dim(0), x.dim(1), h, block, w, block});
  const Shape box{x.dim(0), block, block, x.dim(1), h, w};
  const Shape shape{x.dim(0), x.dim(1) * block * block, h, w};
  T* y = out.make(shape);
  detail::copy_box(x.data(), Axes{s[0], s[3], s[5], s[1], s[2], s[4]}, box, y);
  return {y, shape};
}

/// Keeps the upper (or lower) triangle of each matrix, k diagonals away from the main one.
template <class T>
View<T> triangle(Out<T> out, View<T> x, Index k, bool upper) {
  require(x.rank() >= 2, "Trilu: not a matrix");
  T* y = out.make(x.shape());
  const Index rows = x.dim(x.rank() - 2);
  const Index cols = x.dim(x.rank() - 1);
  const Index planes = x.shape().product(0, x.rank() - 2);
  for (Index p = 0; p < planes; ++p) {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) {
        const Index at = (p * rows + i) * cols + j;
        y[at] = (upper ? j - i >= k : j - i <= k) ? x[at] : T(0);
      }
    }
  }
  return {y, x.shape()};
}

/// Ones on a diagonal; only the shape of `like` matters.
template <class T, class L>
View<T> eye(Out<T> out, View<L> like, Index k) {
  require(like.rank() == 2, "EyeLike: not a matrix");
  T* y = out.make(like.shape());
  for (Index i = 0; i < like.dim(0); ++i) {
    for (Index j = 0; j < like.dim(1); ++j) y[i * like.dim(1) + j] = j - i == k ? T(1) : T(0);
  }
  return {y, like.shape()};
}

/// Reverses the first lengths[b] steps of each sequence.
template <class T>
View<T> reverse_sequence(Out<T> out, View<T> x, View<Index> lengths, int batch_axis,
                         int time_axis) {
  require(x.rank() >= 2 && batch_axis + time_axis == 1, "ReverseSequence: axes must be 0 and 1");
  const Index batch = x.dim(batch_axis);
  const Index time = x.dim(time_axis);
  require(lengths.size() == batch, "ReverseSequence: one length per sequence");
  T* y = out.make(x.shape());
  const Index run = x.shape().product(2, x.rank());
  const auto place = [&](Index b, Index t) {
    return (batch_axis == 0 ? b * time + t : t * batch + b) * run;
  };
  for (Index b = 0; b < batch; ++b) {
    require(lengths[b] >= 0 && lengths[b] <= time, "ReverseSequence: length out of range");
    for (Index t = 0; t < time; ++t) {
      const Index source = t < lengths[b] ? lengths[b] - 1 - t : t;
      copy_elements(x.data() + place(b, source), run, y + place(b, t));
    }
  }
  return {y, x.shape()};
}

/// Piece number i of pieces whose lengths are only known while running.
template <class T>
View<T> split_at(Out<T> out, View<T> x, Index axis, View<Index> lengths, Index i) {
  Index start = 0;
  for (Index k = 0; k < i; ++k) start += lengths[k];
  return split(out, x, axis, start, lengths[i]);
}

/// Piece number i of `count` equal ones; the last may be shorter.
template <class T>
View<T> split_equal(Out<T> out, View<T> x, Index axis, Index i, Index count) {
  const Index whole = x.dim(wrap_axis(axis, x.rank()));
  const Index piece = (whole + count - 1) / count;
  const Index start = std::min(i * piece, whole);
  return split(out, x, axis, start, std::min(piece, whole - start));
}

}  // namespace adc::op
