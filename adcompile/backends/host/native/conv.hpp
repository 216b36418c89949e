// Convolutions in one to three dimensions.
#pragma once

#include "gemm.hpp"
#include "window.hpp"

namespace adc::op {

namespace detail {

/// Packs the windows of 16 neighbouring outputs as columns: convolution as a matrix product
/// without the matrix ever being stored.
template <class F, class T>
struct PackWindows {
  const T* x;  // first channel of the group
  const Window& w;

  void operator()(Index k0, Index k1, Index j0, Index width, F* to) const {
    const Span& sz = w.dim[0];
    const Span& sy = w.dim[1];
    const Span& sx = w.dim[2];
    std::array<Index, kTileCols> z{};
    std::array<Index, kTileCols> y{};
    std::array<Index, kTileCols> c{};
    for (Index j = 0; j < width; ++j) {
      const auto u = static_cast<std::size_t>(j);
      const Index o = j0 + j;
      z[u] = o / (sy.out * sx.out) * sz.stride - sz.before;
      y[u] = o / sx.out % sy.out * sy.stride - sy.before;
      c[u] = o % sx.out * sx.stride - sx.before;
    }
    const Index taps = w.kernel_size();
    for (Index k = k0; k < k1; ++k, to += kTileCols) {
      const T* channel = x + k / taps * w.in_size();
      const Index tap = k % taps;
      const Index dz = tap / (sy.kernel * sx.kernel) * sz.dilation;
      const Index dy = tap / sx.kernel % sy.kernel * sy.dilation;
      const Index dx = tap % sx.kernel * sx.dilation;
      for (Index j = 0; j < width; ++j) {
        const auto u = static_cast<std::size_t>(j);
        const Index pz = z[u] + dz;
        const Index py = y[u] + dy;
        const Index px = c[u] + dx;
        const bool inside = pz >= 0 && pz < sz.in && py >= 0 && py < sy.in && px >= 0 && px < sx.in;
        to[j] = inside ? static_cast<F>(channel[(pz * sy.in + py) * sx.in + px]) : F{};
      }
      for (Index j = width; j < kTileCols; ++j) to[j] = F{};
    }
  }
};

/// One channel with its own kernel: rows of outputs, tap by tap.
template <class F, class T>
void convolve_plane(const T* x, const T* kernel, const Window& w, F* y) {
  const Span& sz = w.dim[0];
  const Span& sy = w.dim[1];
  const Span& sx = w.dim[2];
  for (Index oz = 0; oz < sz.out; ++oz) {
    for (Index oy = 0; oy < sy.out; ++oy, y += sx.out) {
      for (Index kz = 0; kz < sz.kernel; ++kz) {
        const Index iz = sz.source(oz, kz);
        if (iz < 0 || iz >= sz.in) continue;
        for (Index ky = 0; ky < sy.kernel; ++ky) {
          const Index iy = sy.source(oy, ky);
          if (iy < 0 || iy >= sy.in) continue;
          const T* row = x + (iz * sy.in + iy) * sx.in;
          const T* taps = kernel + (kz * sy.kernel + ky) * sx.kernel;
          for (Index kx = 0; kx < sx.kernel; ++kx) {
            const auto [first, last] = sx.valid(kx);
            const F weight = static_cast<F>(taps[kx]);
            if (sx.stride == 1) {
              const Index shift = sx.source(0, kx);
              for (Index o = first; o < last; ++o) {
                y[o] = multiply_add(weight, static_cast<F>(row[o + shift]), y[o]);
              }
            } else {
              for (Index o = first; o < last; ++o) {
                y[o] = multiply_add(weight, static_cast<F>(row[sx.source(o, kx)]), y[o]);
              }
            }
          }
        }
      }
    }
  }
}

/// The reverse: calls add(tap, row of inputs, row of outputs, shift, first, last) for every row of inputs
/// and tap; with that tap, inputs [first, last) reach the outputs at input · stride + shift.
template <class F, class Add>
void spread_rows(const Window& w, F* y, Add add) {
  const Span& sz = w.dim[0];
  const Span& sy = w.dim[1];
  const Span& sx = w.dim[2];
  Index tap = 0;
  for (Index kz = 0; kz < sz.kernel; ++kz) {
    for (Index ky = 0; ky < sy.kernel; ++ky) {
      for (Index kx = 0; kx < sx.kernel; ++kx, ++tap) {
        const auto [z_first, z_last] = sz.valid(kz);
        const auto [y_first, y_last] = sy.valid(ky);
        const auto [x_first, x_last] = sx.valid(kx);
        const Index shift = sx.source(0, kx);
        for (Index oz = z_first; oz < z_last; ++oz) {
          for (Index oy = y_first; oy < y_last; ++oy) {
            F* to = y + (sz.source(oz, kz) * sy.in + sy.source(oy, ky)) * sx.in;
            add(tap, (oz * sy.out + oy) * sx.out, to, shift, x_first, x_last);
          }
        }
      }
    }
  }
}

/// One channel with its own kernel: every input pixel adds it to the outputs it reaches.
template <class F, class T>
void spread_plane(const T* x, const T* kernel, const Window& w, F* y) {
  const Index stride = w.dim[2].stride;
  spread_rows(w, y, [=](Index tap, Index row, F* to, Index shift, Index first, Index last) {
    const F weight = static_cast<F>(kernel[tap]);
    for (Index o = first; o < last; ++o) {
      F& target = to[o * stride + shift];
      target = multiply_add(weight, static_cast<F>(x[row + o]), target);
    }
  });
}

/// The products of all inputs with each tap, [taps, inputs], added to the outputs they belong to.
template <class F>
void spread_products(const F* products, const Window& w, F* y) {
  const Index stride = w.dim[2].stride;
  const Index size = w.out_size();
  spread_rows(w, y, [=](Index tap, Index row, F* to, Index shift, Index first, Index last) {
    const F* from = products + tap * size + row;
    for (Index o = first; o < last; ++o) to[o * stride + shift] += from[o];
  });
}

template <class T>
void add_bias(Compute<T>* y, const View<T>* bias, Index channels, Index size) {
  if (bias == nullptr) return;
  for (Index c = 0; c < channels; ++c) {
    const auto b = static_cast<Compute<T>>((*bias)[c]);
    for (Index i = 0; i < size; ++i) y[c * size + i] += b;
  }
}

}  // namespace detail

/// x [n, c, …] with weights [m, c / groups, …] and an optional bias [m].
template <class T>
View<T> conv(Out<T> out, Scratch& scratch, View<T> x, View<T> weights, const View<T>* bias,
             Index groups, WindowSpec spec) {
  using F = Compute<T>;
  require(x.rank() == weights.rank() && x.rank() >= 3, "Conv: ranks differ");
  spec.kernel = Shape{};
  for (int i = 2; i < weights.rank(); ++i) spec.kernel.push_back(weights.dim(i));
  const Window w = make_window(x.shape(), spec);
  const Index channels = x.dim(1);
  const Index maps = weights.dim(0);
  require(groups > 0 && channels % groups == 0 && maps % groups == 0 &&
              weights.dim(1) == channels / groups,
          "Conv: channels do not fit the weights");
  require(bias == nullptr || bias->size() == maps, "Conv: bias does not fit");
  const Shape shape = w.output(x.dim(0), maps);
  T* y = out.make(shape);
  const Index in = w.in_size();
  const Index size = w.out_size();
  const Index depth = channels / groups * w.kernel_size();
  const Index rows = maps / groups;
  F* wide = nullptr;
  if constexpr (!std::is_same_v<F, T>) wide = scratch.take<F>(5, maps * size);
  for (Index n = 0; n < x.dim(0); ++n) {
    F* to = wide;
    if constexpr (std::is_same_v<F, T>) to = y + n * maps * size;
    if (rows == 1 && channels == groups) {
      std::fill_n(to, maps * size, F{});
      parallel_for(maps, 1 + (1 << 16) / (size * depth + 1), [&](Index first, Index last) {
        for (Index c = first; c < last; ++c) {
          detail::convolve_plane(x.data() + (n * channels + c) * in, weights.data() + c * depth, w,
                                 to + c * size);
        }
      });
    } else {
      const bool pointwise = w.dim[0].idle() && w.dim[1].idle() && w.dim[2].idle();
      for (Index g = 0; g < groups; ++g) {
        const T* source = x.data() + (n * channels + g * (channels / groups)) * in;
        const detail::Matrix<T> a{weights.data() + g * rows * depth, depth, 1};
        F* const result = to + g * rows * size;
        if (pointwise) {  // the input is the matrix
          const detail::PackMatrix<F, T> pack{detail::Matrix<T>{source, size, 1}};
          detail::gemm<F>(rows, size, depth, a, pack, result, size);
        } else {
          detail::gemm<F>(rows, size, depth, a, detail::PackWindows<F, T>{source, w}, result, size);
        }
      }
    }
    detail::add_bias<T>(to, bias, maps, size);
    if constexpr (!std::is_same_v<F, T>) {
      for (Index i = 0; i < maps * size; ++i) y[n * maps * size + i] = T(wide[i]);
    }
  }
  return {y, shape};
}

/// Transposed convolution: every input spreads its kernel over the output. `extra` is
/// output_padding, `wanted` the output's spatial shape when the model gives it.
template <class T>
View<T> conv_transpose(Out<T> out, Scratch& scratch, View<T> x, View<T> weights,
                       const View<T>* bias, Index groups, WindowSpec spec, const Shape& extra,
                       const Shape& wanted) {
  using F = Compute<T>;
  const int spatial = x.rank() - 2;
  require(x.rank() == weights.rank() && spatial >= 1 && spatial <= 3, "ConvTranspose: ranks differ");
  require(groups > 0 && weights.dim(0) == x.dim(1) && x.dim(1) % groups == 0,
          "ConvTranspose: channels do not fit the weights");
  // The geometry of the convolution that this one undoes: its input is our output.
  Window w;
  w.spatial = spatial;
  for (int i = 0; i < spatial; ++i) {
    Span& s = w.dim[static_cast<std::size_t>(3 - spatial + i)];
    s.out = x.dim(2 + i);
    s.kernel = weights.dim(2 + i);
    if (spec.strides.rank() > 0) s.stride = spec.strides[i];
    if (spec.dilations.rank() > 0) s.dilation = spec.dilations[i];
    const Index add = extra.rank() > 0 ? extra[i] : 0;
    const Index full = (s.out - 1) * s.stride + (s.kernel - 1) * s.dilation + 1 + add;
    const bool same = spec.auto_pad == AutoPad::same_upper || spec.auto_pad == AutoPad::same_lower;
    if (wanted.rank() > 0 || same) {
      s.in = wanted.rank() > 0 ? wanted[wanted.rank() - spatial + i] : s.out * s.stride;
      const Index total = std::max(full - s.in, Index{0});
      s.before = spec.auto_pad == AutoPad::same_upper ? total / 2 : total - total / 2;
    } else {
      if (spec.pads.rank() > 0) s.before = spec.pads[i];
      s.in = full - s.before - (spec.pads.rank() > 0 ? spec.pads[i + spatial] : 0);
    }
    require(s.in > 0 && s.out > 0, "ConvTranspose: empty result");
  }
  const Index per_group = weights.dim(1);
  const Index maps = per_group * groups;
  require(bias == nullptr || bias->size() == maps, "ConvTranspose: bias does not fit");
  Shape shape{x.dim(0), maps};
  for (std::size_t i = 3 - static_cast<std::size_t>(spatial); i < 3; ++i) {
    shape.push_back(w.dim[i].in);
  }
  T* y = out.make(shape);
  const Index size = w.in_size();
  const Index taps = w.kernel_size();
  const Index pixels = w.out_size();
  const Index in_per_group = x.dim(1) / groups;
  F* products = nullptr;
  if (in_per_group > 1) {
    products = scratch.take<F>(4, checked_product(maps, checked_product(taps, pixels)));
  }
  F* wide = nullptr;
  if constexpr (!std::is_same_v<F, T>) wide = scratch.take<F>(5, maps * size);
  for (Index n = 0; n < x.dim(0); ++n) {
    F* image = wide;
    if constexpr (std::is_same_v<F, T>) image = y + n * maps * size;
    for (Index g = 0; g < groups && in_per_group > 1; ++g) {
      // A product for every map and tap: weights [in, maps · taps] turned, times inputs [in, pixels].
      const Index rows = per_group * taps;
      const detail::Matrix<T> a{weights.data() + g * in_per_group * rows, 1, rows};
      const detail::Matrix<T> b{x.data() + (n * groups + g) * in_per_group * pixels, pixels, 1};
      detail::gemm<F>(rows, pixels, in_per_group, a, detail::PackMatrix<F, T>{b},
                      products + g * rows * pixels, pixels);
    }
    parallel_for(maps, 1 + kCopyGrain / (taps * pixels + size), [&](Index first, Index last) {
      for (Index m = first; m < last; ++m) {
        F* plane = image + m * size;
        std::fill_n(plane, size, bias != nullptr ? static_cast<F>((*bias)[m]) : F{});
        if (in_per_group > 1) {
          detail::spread_products(products + m * taps * pixels, w, plane);
        } else {
          detail::spread_plane(x.data() + (n * groups + m / per_group) * pixels,
                               weights.data() + m * taps, w, plane);
        }
      }
    });
    if constexpr (!std::is_same_v<F, T>) {
      for (Index i = 0; i < maps * size; ++i) y[n * maps * size + i] = T(wide[i]);
    }
  }
  return {y, shape};
}

}  // namespace adc::op
