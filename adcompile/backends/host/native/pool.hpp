// Pooling over sliding windows and over whole planes.
#pragma once

#include "reduce.hpp"
#include "sliding.hpp"

namespace adc::op {

namespace detail {

/// Calls row(first, last, input index of output first, input step) for every tap of every output
/// row; outputs outside [first, last) do not see that tap.
template <class F>
void each_tap(const Window& w, Index oz, Index oy, F row) {
  const Span& sz = w.dim[0];
  const Span& sy = w.dim[1];
  const Span& sx = w.dim[2];
  for (Index kz = 0; kz < sz.kernel; ++kz) {
    const Index iz = sz.source(oz, kz);
    if (iz < 0 || iz >= sz.in) continue;
    for (Index ky = 0; ky < sy.kernel; ++ky) {
      const Index iy = sy.source(oy, ky);
      if (iy < 0 || iy >= sy.in) continue;
      for (Index kx = 0; kx < sx.kernel; ++kx) {
        const auto bounds = sx.valid(kx);
        if (bounds.first >= bounds.second) continue;
        row(bounds.first, bounds.second,
            (iz * sy.in + iy) * sx.in + sx.source(bounds.first, kx));
      }
    }
  }
}

/// How many taps of output o count along one dimension.
inline Index tap_count(const Span& s, Index o, bool with_padding) {
  Index n = 0;
  for (Index k = 0; k < s.kernel; ++k) {
    const Index i = s.source(o, k);
    n += with_padding ? (i >= -s.before && i < s.in + s.after) : (i >= 0 && i < s.in);
  }
  return n;
}

/// Runs plane(input plane, output plane) for each [n, c].
template <class T, class F>
View<T> pool_planes(Out<T> out, View<T> x, const Window& w, F plane) {
  const Shape shape = w.output(x.dim(0), x.dim(1));
  T* y = out.make(shape);
  const Index work = w.out_size() * w.kernel_size();
  parallel_for(x.dim(0) * x.dim(1), 1 + (1 << 15) / (work + 1), [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      plane(x.data() + p * w.in_size(), y + p * w.out_size(), p);
    }
  });
  return {y, shape};
}

}  // namespace detail

/// Mean of each window; `with_padding`: padded zeros count as elements.
template <class T>
View<T> average_pool(Out<T> out, Scratch& scratch, View<T> x, const WindowSpec& spec,
                     bool with_padding) {
  using F = Compute<T>;
  const Window w = make_window(x.shape(), spec);
  const Shape shape = w.output(x.dim(0), x.dim(1));
  T* y = out.make(shape);
  const Index depth = w.dim[0].out;
  const Index height = w.dim[1].out;
  const Index width = w.dim[2].out;
  // Elements per window: a product of three counts. Columns [left, right) all have the most of them.
  Index* counts = scratch.take<Index>(0, depth + height + width);
  Index* const lines = counts + depth;
  Index* const columns = lines + height;
  for (Index o = 0; o < depth; ++o) counts[o] = detail::tap_count(w.dim[0], o, with_padding);
  for (Index o = 0; o < height; ++o) lines[o] = detail::tap_count(w.dim[1], o, with_padding);
  for (Index o = 0; o < width; ++o) columns[o] = detail::tap_count(w.dim[2], o, with_padding);
  const Index most = width > 0 ? *std::max_element(columns, columns + width) : 0;
  Index left = 0;
  Index right = width;
  while (left < right && columns[left] != most) ++left;
  while (right > left && columns[right - 1] != most) --right;
  if (std::count(columns + left, columns + right, most) != right - left) right = left;
  const bool even = std::count(counts, counts + depth, depth > 0 ? counts[0] : 0) == depth &&
                    std::count(lines, lines + height, height > 0 ? lines[0] : 0) == height &&
                    right - left == width;
  fold_windows<SlidingSum<F>, F>(
      scratch, w, x.dim(0) * x.dim(1), x.data(), y,
      [&](const F* sums, Index first, Index rows, T* to) {
        if (even) {
          const F share = F{1} / static_cast<F>(counts[0] * lines[0] * most);
          for (Index i = 0; i < rows * width; ++i) to[i] = T(sums[i] * share);
          return;
        }
        for (Index r = first; r < first + rows; ++r, sums += width, to += width) {
          const Index above = counts[r / height % depth] * lines[r % height];
          const auto border = [&](Index o) {
            to[o] = T(sums[o] / static_cast<F>(above * columns[o]));
          };
          for (Index o = 0; o < left; ++o) border(o);
          const F share = F{1} / static_cast<F>(above * most);
          for (Index o = left; o < right; ++o) to[o] = T(sums[o] * share);
          for (Index o = right; o < width; ++o) border(o);
        }
      });
  return {y, shape};
}

/// Largest of each window.
template <class T>
View<T> max_pool(Out<T> out, Scratch& scratch, View<T> x, const WindowSpec& spec) {
  using F = Compute<T>;
  const Window w = make_window(x.shape(), spec);
  const Shape shape = w.output(x.dim(0), x.dim(1));
  T* y = out.make(shape);
  fold_windows<SlidingMax<F>, F>(scratch, w, x.dim(0) * x.dim(1), x.data(), y,
                                 [&](const F* values, Index, Index rows, T* to) {
                                   if constexpr (!std::is_same_v<F, T>) {
                                     const Index n = rows * w.dim[2].out;
                                     for (Index i = 0; i < n; ++i) to[i] = T(values[i]);
                                   }
                                 });
  return {y, shape};
}

/// Largest of each window and where it was: a flat index into x. `column_major` counts the two
/// innermost dimensions the other way round.
template <class T>
std::pair<View<T>, View<Index>> max_pool_indices(Out<T> out, Out<Index> places, View<T> x,
                                                 const WindowSpec& spec, bool column_major) {
  const Window w = make_window(x.shape(), spec);
  const Span& sx = w.dim[2];
  const Shape shape = w.output(x.dim(0), x.dim(1));
  Index* where = places.make(shape);
  const View<T> y = detail::pool_planes(out, x, w, [&](const T* from, T* to, Index p) {
    Index* at_best = where + p * w.out_size();
    for (Index oz = 0; oz < w.dim[0].out; ++oz) {
      for (Index oy = 0; oy < w.dim[1].out; ++oy, to += sx.out, at_best += sx.out) {
        std::fill_n(to, sx.out, ReduceMax<T>::lowest());
        std::fill_n(at_best, sx.out, Index{-1});
        detail::each_tap(w, oz, oy, [&](Index first, Index last, Index at) {
          for (Index o = first; o < last; ++o) {
            const Index i = at + (o - first) * sx.stride;
            if (at_best[o] >= 0 && !(from[i] > to[o])) continue;
            to[o] = from[i];
            at_best[o] = i;
          }
        });
        for (Index o = 0; o < sx.out; ++o) {
          Index i = at_best[o];
          if (column_major) {
            const Index rows = w.dim[1].in;
            const Index cols = sx.in;
            const Index plane = i / (rows * cols);
            i = plane * rows * cols + i % cols * rows + i / cols % rows;
          }
          at_best[o] = p * w.in_size() + i;
        }
      }
    }
  });
  return {y, View<Index>(where, shape)};
}

/// p-norm of each window.
template <class T>
View<T> lp_pool(Out<T> out, View<T> x, const WindowSpec& spec, Index p) {
  using F = Compute<T>;
  const Window w = make_window(x.shape(), spec);
  const Span& sx = w.dim[2];
  const F power = static_cast<F>(p);
  return detail::pool_planes(out, x, w, [&](const T* from, T* to, Index) {
    for (Index oz = 0; oz < w.dim[0].out; ++oz) {
      for (Index oy = 0; oy < w.dim[1].out; ++oy, to += sx.out) {
        std::fill_n(to, sx.out, T(0));
        detail::each_tap(w, oz, oy, [&](Index first, Index last, Index at) {
          for (Index o = first; o < last; ++o) {
            const F v = std::fabs(static_cast<F>(from[at + (o - first) * sx.stride]));
            to[o] = T(static_cast<F>(to[o]) + std::pow(v, power));
          }
        });
        for (Index o = 0; o < sx.out; ++o) to[o] = T(std::pow(static_cast<F>(to[o]), F{1} / power));
      }
    }
  });
}

/// Puts pooled values back where they came from in a tensor of shape `inner`; everything else is
/// zero. A larger `outer` gets it in its low corner.
template <class T>
View<T> max_unpool(Out<T> out, Scratch& scratch, View<T> x, View<Index> places, const Shape& inner,
                   const Shape& outer) {
  require(places.shape() == x.shape(), "MaxUnpool: one index per value");
  require(inner.rank() == outer.rank(), "MaxUnpool: ranks differ");
  T* y = out.make(outer);
  const Index size = inner.size();
  T* plane = inner == outer ? y : scratch.take<T>(0, size);
  std::fill_n(plane, size, T(0));
  for (Index i = 0; i < x.size(); ++i) plane[detail::wrap_index(places[i], size)] = x[i];
  if (inner == outer) return {y, outer};
  Shape box = inner;
  for (int i = 0; i < box.rank(); ++i) box[i] = std::min(inner[i], outer[i]);
  std::fill_n(y, outer.size(), T(0));
  const Axes from = strides_of(inner);
  const Axes to = strides_of(outer);
  Axes at{};
  for (Index n = box.size(); n > 0; --n) {
    Index source = 0;
    Index target = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(box.rank()); ++d) {
      source += at[d] * from[d];
      target += at[d] * to[d];
    }
    y[target] = plane[source];
    for (int d = box.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < box[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y, outer};
}

}  // namespace adc::op
