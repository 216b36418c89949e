// Kernels of the adcompile operators: scoring of anomaly detectors.
#pragma once

#include <cmath>

#include "bank_search.hpp"
#include "math.hpp"
#include "tensor.hpp"

namespace adc::op {

/// The k nearest bank rows of each feature row: *squared* distances, ascending, and row numbers.
inline std::pair<View<float>, View<Index>> knn_search(Out<float> distances, Out<Index> indices,
                                                      Scratch& scratch, View<float> features,
                                                      adc_searcher* searcher, Index k) {
  require(features.rank() == 2, "KnnSearch: features are not rows");
  const Shape shape{features.dim(0), k};
  float* d = distances.make(shape);
  Index* i = indices.make(shape);
  double* squared = scratch.take<double>(0, shape.size());
  static_assert(sizeof(Index) == sizeof(std::int64_t));
  std::array<char, 256> why{};
  if (features.dim(0) > 0 &&
      adc_searcher_run(searcher, features.data(), features.dim(0), static_cast<int>(k),
                       reinterpret_cast<std::int64_t*>(i), squared, why.data(),
                       why.size()) != ADC_OK) {
    fail(std::string("nearest neighbours: ") + why.data());
  }
  for (Index n = 0; n < shape.size(); ++n) d[n] = static_cast<float>(squared[n]);
  return {View<float>(d, shape), View<Index>(i, shape)};
}

namespace detail {

/// The first column of `distances` as maps [N, 1, h, w], and per image the worst patch.
template <class F>
void each_image(View<float> distances, const Shape& grid, float* map, F image) {
  require(distances.rank() == 2 && distances.dim(1) > 0, "patch score: no distances");
  const Index patches = grid.size();
  require(patches > 0 && distances.dim(0) % patches == 0, "patch score: rows do not fill the grid");
  const Index k = distances.dim(1);
  for (Index n = 0; n < distances.dim(0) / patches; ++n) {
    const float* rows = distances.data() + n * patches * k;
    Index worst = 0;
    for (Index p = 0; p < patches; ++p) {
      map[n * patches + p] = rows[p * k];
      // A NaN counts as the largest: a broken patch decides the score.
      const float best = rows[worst * k];
      if (rows[p * k] > best || (rows[p * k] != rows[p * k] && best == best)) worst = p;
    }
    image(n, worst, rows + worst * k);
  }
}

/// Share of all but one term in a sum of exp(d - limit): terms [first, last) over terms [0, k).
inline float softmax_rest(const float* d, Index k, float limit, Index first, Index last) {
  float part = 0;
  float all = 0;
  for (Index i = 0; i < k; ++i) {
    const float e = std::exp(d[i] - limit);
    all += e;
    if (i >= first && i < last) part += e;
  }
  return part / all;
}

/// Where the entries of a row that count lie: [first, last).
struct NonZero {
  Index first;
  Index last;
};
inline NonZero nonzero_of(const float* row, Index n) {
  NonZero band{0, n};
  while (band.first < n && row[band.first] == 0.0f) ++band.first;
  while (band.last > band.first && row[band.last - 1] == 0.0f) --band.last;
  return band;
}

/// y += weight * x
inline void add_scaled(float weight, const float* x, Index n, float* __restrict__ y) {
  for (Index i = 0; i < n; ++i) y[i] += weight * x[i];
}

}  // namespace detail

/// Largest first-neighbour distance per image.
inline std::pair<View<float>, View<float>> patch_score(Out<float> score, Out<float> map,
                                                       View<float> distances, const Shape& grid) {
  const Index images = distances.dim(0) / std::max(grid.size(), Index{1});
  const Shape many{images};
  const Shape maps{images, 1, grid[0], grid[1]};
  float* s = score.make(many);
  float* m = map.make(maps);
  detail::each_image(distances, grid, m,
                     [&](Index n, Index, const float* row) { s[n] = row[0]; });
  return {View<float>(s, many), View<float>(m, maps)};
}

/// The same, weighted by the worst patch's own distances.
inline std::pair<View<float>, View<float>> patch_score_own(Out<float> score, Out<float> map,
                                                           View<float> distances,
                                                           const Shape& grid) {
  const Index images = distances.dim(0) / std::max(grid.size(), Index{1});
  const Shape many{images};
  const Shape maps{images, 1, grid[0], grid[1]};
  float* s = score.make(many);
  float* m = map.make(maps);
  const Index k = distances.dim(1);
  detail::each_image(distances, grid, m, [&](Index n, Index, const float* row) {
    s[n] = detail::softmax_rest(row, k, row[k - 1], 0, k - 1) * row[0];
  });
  return {View<float>(s, many), View<float>(m, maps)};
}

/// Mean over the channels of (a - b)².
inline View<float> squared_error_map(Out<float> out, View<float> a, View<float> b) {
  require(a.rank() == 4 && a.shape() == b.shape() && a.dim(1) > 0,
          "SquaredErrorMap: the maps do not fit each other");
  const Shape shape{a.dim(0), 1, a.dim(2), a.dim(3)};
  float* y = out.make(shape);
  const Index plane = a.dim(2) * a.dim(3);
  const auto channels = static_cast<float>(a.dim(1));
  for (Index n = 0; n < a.dim(0); ++n) {
    float* to = y + n * plane;
    std::fill_n(to, plane, 0.0f);
    for (Index c = 0; c < a.dim(1); ++c) {
      const float* p = a.data() + (n * a.dim(1) + c) * plane;
      const float* q = b.data() + (n * a.dim(1) + c) * plane;
      for (Index i = 0; i < plane; ++i) to[i] += (p[i] - q[i]) * (p[i] - q[i]);
    }
    for (Index i = 0; i < plane; ++i) to[i] /= channels;
  }
  return {y, shape};
}

/// rows · (map · columns) per image. The matrices hold an enlargement and a blur, so that most of their
/// entries are zero: only the others are multiplied, and equal rows (nearest enlargement) are copied.
inline View<float> map_upsample_blur(Out<float> out, Scratch& scratch, View<float> map,
                                     View<float> rows, View<float> columns) {
  require(map.rank() == 4 && map.dim(1) == 1 && rows.rank() == 2 && columns.rank() == 2 &&
              rows.dim(1) == map.dim(2) && columns.dim(0) == map.dim(3),
          "MapUpsampleBlur: the matrices do not fit the map");
  const Index h = map.dim(2);
  const Index w = map.dim(3);
  const Index width = columns.dim(1);
  const Shape shape{map.dim(0), 1, rows.dim(0), width};
  float* y = out.make(shape);
  // The sides of the map grow one after the other: `wide` is [h, width].
  float* wide = scratch.take<float>(0, checked_product(h, width));
  for (Index n = 0; n < map.dim(0); ++n) {
    std::fill_n(wide, h * width, 0.0f);
    for (Index c = 0; c < w; ++c) {
      const detail::NonZero band = detail::nonzero_of(columns.data() + c * width, width);
      for (Index r = 0; r < h; ++r) {
        detail::add_scaled(map[(n * h + r) * w + c], columns.data() + c * width + band.first,
                           band.last - band.first, wide + r * width + band.first);
      }
    }
    for (Index i = 0; i < rows.dim(0); ++i, y += width) {
      const float* weights = rows.data() + i * h;
      if (i > 0 && std::equal(weights, weights + h, weights - h)) {
        copy_elements(y - width, width, y);
        continue;
      }
      std::fill_n(y, width, 0.0f);
      const detail::NonZero band = detail::nonzero_of(weights, h);
      for (Index r = band.first; r < band.last; ++r) {
        detail::add_scaled(weights[r], wide + r * width, width, y);
      }
    }
  }
  return {y - shape.size(), shape};
}

/// A raw score on a scale where the threshold is 0.5, cut to 0 … 1.
inline float normalized_score(float raw, float threshold, float minimum, float maximum) {
  return math::min(math::max((raw - threshold) / (maximum - minimum) + 0.5f, 0.0f), 1.0f);
}

}  // namespace adc::op
