// Sampling at given positions.
#pragma once

#include "resize.hpp"

namespace adc::op {

enum class GridMode { linear, nearest, cubic };
enum class GridPadding { zeros, border, reflection };

namespace detail {

/// Reflects a coordinate into [low, high].
inline double reflect(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0) return low;
  double d = std::fmod(std::fabs(x - low), 2 * range);
  if (d > range) d = 2 * range - d;
  return low + d;
}

/// The input index for tap i, or -1 for a zero.
inline Index grid_index(Index i, Index n, GridPadding padding, bool corners) {
  if (i >= 0 && i < n) return i;
  if (padding == GridPadding::zeros) return -1;
  if (padding == GridPadding::border) return std::min(std::max(i, Index{0}), n - 1);
  const double x = corners ? reflect(static_cast<double>(i), 0, static_cast<double>(n - 1))
                           : reflect(static_cast<double>(i), -0.5, static_cast<double>(n) - 0.5);
  return std::min(std::max(static_cast<Index>(std::nearbyint(x)), Index{0}), n - 1);
}

struct GridTaps {
  std::array<Index, 4> index{};
  std::array<double, 4> weight{};
  int count = 0;
};

inline GridTaps grid_taps(double x, Index n, GridMode mode, GridPadding padding, bool corners) {
  if (!(std::fabs(x) < 1e15)) x = -1e15;  // NaN and infinities sample outside
  GridTaps t;
  if (padding == GridPadding::border && mode != GridMode::cubic) {
    x = std::min(std::max(x, 0.0), static_cast<double>(n - 1));
  }
  if (padding == GridPadding::reflection && mode != GridMode::cubic) {
    x = corners ? reflect(x, 0, static_cast<double>(n - 1))
                : std::min(std::max(reflect(x, -0.5, static_cast<double>(n) - 0.5), 0.0),
                           static_cast<double>(n - 1));
  }
  const auto base = static_cast<Index>(std::floor(x));
  const double f = x - std::floor(x);
  if (mode == GridMode::nearest) {
    t.count = 1;
    t.index[0] = grid_index(static_cast<Index>(std::nearbyint(x)), n, padding, corners);
    t.weight[0] = 1;
    return t;
  }
  const Index lead = mode == GridMode::cubic ? 1 : 0;
  t.count = mode == GridMode::cubic ? 4 : 2;
  for (int k = 0; k < t.count; ++k) {
    const auto u = static_cast<std::size_t>(k);
    t.index[u] = grid_index(base - lead + k, n, padding, corners);
    const double distance = f + static_cast<double>(lead - k);
    t.weight[u] = mode == GridMode::cubic ? cubic_weight(distance, -0.75)
                                          : 1.0 - std::fabs(distance);
  }
  return t;
}

}  // namespace detail

/// x [n, c, (d,) h, w] sampled at grid [n, (d',) h', w', 2 or 3] in [-1, 1], last coordinate first.
template <class T, class G>
View<T> grid_sample(Out<T> out, View<T> x, View<G> grid, GridMode mode, GridPadding padding,
                    bool corners) {
  const int spatial = x.rank() - 2;
  require((spatial == 2 || spatial == 3) && grid.rank() == x.rank() &&
              grid.dim(grid.rank() - 1) == spatial && grid.dim(0) == x.dim(0),
          "GridSample: grid does not fit");
  Shape shape{x.dim(0), x.dim(1)};
  for (int i = 1; i <= spatial; ++i) shape.push_back(grid.dim(i));
  T* y = out.make(shape);
  const Index points = shape.product(2, shape.rank());
  const Index plane = x.shape().product(2, x.rank());
  const Index height = x.dim(x.rank() - 2);
  const Index width = x.dim(x.rank() - 1);
  using F = Compute<T>;
  for (Index n = 0; n < x.dim(0); ++n) {
    for (Index p = 0; p < points; ++p) {
      std::array<detail::GridTaps, 3> taps;
      taps[0].count = 1;
      taps[0].weight[0] = 1;
      for (int k = 0; k < spatial; ++k) {
        const Index size = x.dim(x.rank() - 1 - k);
        const auto g = static_cast<double>(grid[(n * points + p) * spatial + k]);
        const double at = corners ? (g + 1) / 2 * static_cast<double>(size - 1)
                                  : ((g + 1) * static_cast<double>(size) - 1) / 2;
        taps[static_cast<std::size_t>(2 - k)] = detail::grid_taps(at, size, mode, padding, corners);
      }
      for (Index c = 0; c < x.dim(1); ++c) {
        const T* from = x.data() + (n * x.dim(1) + c) * plane;
        F total{};
        for (int a = 0; a < taps[0].count; ++a) {
          for (int b = 0; b < taps[1].count; ++b) {
            for (int d = 0; d < taps[2].count; ++d) {
              const Index iz = taps[0].index[static_cast<std::size_t>(a)];
              const Index iy = taps[1].index[static_cast<std::size_t>(b)];
              const Index ix = taps[2].index[static_cast<std::size_t>(d)];
              if (iz < 0 || iy < 0 || ix < 0) continue;
              const double w = taps[0].weight[static_cast<std::size_t>(a)] *
                               taps[1].weight[static_cast<std::size_t>(b)] *
                               taps[2].weight[static_cast<std::size_t>(d)];
              total += static_cast<F>(w) * static_cast<F>(from[(iz * height + iy) * width + ix]);
            }
          }
        }
        y[(n * x.dim(1) + c) * points + p] = T(total);
      }
    }
  }
  return {y, shape};
}

}  // namespace adc::op
