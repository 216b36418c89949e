// Squared distances of patches to the Gaussian of their place (PaDiM).
#pragma once

#include "gemm.hpp"
#include "reduce.hpp"
#include "transpose.hpp"

namespace adc::op {

namespace detail {

/// gapᵀ · matrix · gap for a matrix [n, n]; `turned` has room for n numbers.
inline float quadratic_form(const float* matrix, const float* gap, Index n,
                            float* __restrict__ turned) {
  std::fill_n(turned, n, 0.0f);
  for (Index r = 0; r < n; ++r, matrix += n) {
    const float g = gap[r];
    for (Index c = 0; c < n; ++c) turned[c] = multiply_add(g, matrix[c], turned[c]);
  }
  for (Index c = 0; c < n; ++c) turned[c] *= gap[c];
  return reduce_row<ReduceSum<float>>(turned, n).result(n);
}

}  // namespace detail

/// (x - mean)ᵀ · inverse · (x - mean) per patch, at least 0.
inline View<float> mahalanobis_map(Out<float> out, Scratch& scratch, View<float> embedding,
                                   View<float> mean, View<float> inverse) {
  require(embedding.rank() == 4 && mean.rank() == 2 && inverse.rank() == 3,
          "MahalanobisMap: wrong ranks");
  const Index channels = embedding.dim(1);
  const Index patches = embedding.dim(2) * embedding.dim(3);
  require(mean.shape() == Shape(channels, patches) &&
              inverse.shape() == Shape(patches, channels, channels),
          "MahalanobisMap: statistics do not fit the embedding");
  const Shape shape{embedding.dim(0), 1, embedding.dim(2), embedding.dim(3)};
  float* y = out.make(shape);
  // Channels lie far apart in memory: some patches at a time are brought together.
  constexpr Index kPatches = 16;
  const Index blocks = (patches + kPatches - 1) / kPatches;
  const Index pieces = std::max(std::min(Index{4} * threads(), blocks), Index{1});
  const Index room = checked_product(channels, 2 * kPatches + 1);
  float* spare = scratch.take<float>(0, checked_product(room, pieces));
  for (Index n = 0; n < embedding.dim(0); ++n) {
    const float* x = embedding.data() + n * channels * patches;
    parallel_for(pieces, 1, [&](Index from, Index to) {
      float* const gaps = spare + from * room;  // [channels, patches of the block]
      float* const rows = gaps + channels * kPatches;
      float* const turned = rows + channels * kPatches;
      for (Index b = from * blocks / pieces; b < to * blocks / pieces; ++b) {
        const Index first = b * kPatches;
        const Index count = std::min(kPatches, patches - first);
        for (Index c = 0; c < channels; ++c) {
          const Index at = c * patches + first;
          for (Index i = 0; i < count; ++i) gaps[c * count + i] = x[at + i] - mean[at + i];
        }
        detail::turn_rows(gaps, count, 0, count, channels, rows, channels);
        for (Index i = 0; i < count; ++i) {
          const float* matrix = inverse.data() + (first + i) * channels * channels;
          const float form = detail::quadratic_form(matrix, rows + i * channels, channels, turned);
          y[n * patches + first + i] = math::max(form, 0.0f);
        }
      }
    });
  }
  return {y, shape};
}

}  // namespace adc::op
