// Pooling over sliding windows and over whole planes.
#pragma once

#include "reduce.hpp"
#include "window.hpp"

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
  const Span& sx = w.dim[2];
  // One over the number of taps, per output column; rows and depth multiply in.
  F* columns = scratch.take<F>(0, sx.out);
  for (Index o = 0; o < sx.out; ++o) {
    columns[o] = static_cast<F>(detail::tap_count(sx, o, with_padding));
  }
  return detail::pool_planes(out, x, w, [&](const T* from, T* to, Index) {
    constexpr Index kRow = 256;
    std::array<F, kRow> sum;
    for (Index oz = 0; oz < w.dim[0].out; ++oz) {
      const Index nz = detail::tap_count(w.dim[0], oz, with_padding);
      for (Index oy = 0; oy < w.dim[1].out; ++oy, to += sx.out) {
        const auto nzy = static_cast<F>(nz * detail::tap_count(w.dim[1], oy, with_padding));
        for (Index begin = 0; begin < sx.out; begin += kRow) {
          const Index end = std::min(sx.out, begin + kRow);
          std::fill_n(sum.data(), end - begin, F{});
          detail::each_tap(w, oz, oy, [&](Index first, Index last, Index at) {
            const Index low = std::max(first, begin);
            const Index high = std::min(last, end);
            const T* source = from + at + (low - first) * sx.stride;
            F* total = sum.data() + (low - begin);
            if (sx.stride == 1) {
              for (Index i = 0; i < high - low; ++i) total[i] += static_cast<F>(source[i]);
            } else {
              for (Index i = 0; i < high - low; ++i) {
                total[i] += static_cast<F>(source[i * sx.stride]);
              }
            }
          });
          for (Index o = begin; o < end; ++o) {
            to[o] = T(sum[static_cast<std::size_t>(o - begin)] / (nzy * columns[o]));
          }
        }
      }
    }
  });
}

/// Largest of each window.
template <class T>
View<T> max_pool(Out<T> out, View<T> x, const WindowSpec& spec) {
  const Window w = make_window(x.shape(), spec);
  const Span& sx = w.dim[2];
  return detail::pool_planes(out, x, w, [&](const T* from, T* to, Index) {
    for (Index oz = 0; oz < w.dim[0].out; ++oz) {
      for (Index oy = 0; oy < w.dim[1].out; ++oy, to += sx.out) {
        std::fill_n(to, sx.out, ReduceMax<T>::lowest());
        detail::each_tap(w, oz, oy, [&](Index first, Index last, Index at) {
          const T* source = from + at;
          if (sx.stride == 1) {
            for (Index o = first; o < last; ++o) to[o] = math::max(source[o - first], to[o]);
          } else {
            for (Index o = first; o < last; ++o) {
              to[o] = math::max(source[(o - first) * sx.stride], to[o]);
            }
          }
        });
      }
    }
  });
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
