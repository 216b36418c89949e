// Squared distances of patches to the Gaussian of their place (PaDiM).
#pragma once

#include "gemm.hpp"
#include "lookup.hpp"
#include "reduce.hpp"

namespace adc::op {

namespace detail {

/// Patches that are computed beside each other: a whole number of vectors on every processor.
inline constexpr Index kGroup = 16;

/// Where the numbers of channel c of image n begin: in a tensor, or in one that channels are chosen from.
inline const float* channel_of(const View<float>& embedding, Index n, Index c) {
  return embedding.data() + (n * embedding.dim(1) + c) * embedding.dim(2) * embedding.dim(3);
}
template <class I>
const float* channel_of(const Gathered<float, I>& embedding, Index n, Index c) {
  return embedding.row(n, c);
}

/// Calls group(b, first, count, image, gaps) for every group of patches and every image of it:
/// patches first … first + count of image, group number b; gaps [channels, kGroup] are embedding minus
/// mean, zeros behind `count`; room for 2 · channels numbers follows. The images of a group follow each other, so that what is known about its
/// patches is read from memory once.
template <class Embedding, class Group>
void each_group(Scratch& scratch, const Embedding& embedding, View<float> mean, Group&& group) {
  const Shape shape = embedding.shape();
  const Index channels = shape[1];
  const Index patches = shape[2] * shape[3];
  const Index groups = (patches + kGroup - 1) / kGroup;
  const Index pieces = std::max(std::min(Index{4} * threads(), groups), Index{1});
  const Index room = checked_product(channels, kGroup + 2);
  float* const spare = scratch.take<float>(0, checked_product(room, pieces));
  parallel_for(pieces, 1, [&](Index from, Index to) {
    float* const gaps = spare + from * room;
    for (Index b = from * groups / pieces; b < to * groups / pieces; ++b) {
      const Index first = b * kGroup;
      const Index count = std::min(kGroup, patches - first);
      if (count < kGroup) std::fill_n(gaps, channels * kGroup, 0.0f);
      for (Index n = 0; n < shape[0]; ++n) {
        for (Index c = 0; c < channels; ++c) {
          const float* x = channel_of(embedding, n, c) + first;
          const float* m = mean.data() + c * patches + first;
          for (Index l = 0; l < count; ++l) gaps[c * kGroup + l] = x[l] - m[l];
        }
        group(b, first, count, n, gaps);
      }
    }
  });
}

/// For each lane: (row · gap)², added to `sum`. row and gap are [n, kGroup].
inline void add_squared_product(const float* row, const float* gap, Index n,
                                float* __restrict__ sum) {
  constexpr Index kSums = 4;  // beside each other, or every addition would wait for the one before
  float part[kSums][kGroup] = {};
  const auto add = [&](Index which) {
    for (Index l = 0; l < kGroup; ++l) {
      part[which][l] = multiply_add(row[which * kGroup + l], gap[which * kGroup + l], part[which][l]);
    }
  };
  for (; n >= kSums; n -= kSums, row += kSums * kGroup, gap += kSums * kGroup) {
#pragma GCC unroll 4
    for (Index k = 0; k < kSums; ++k) add(k);
  }
  for (Index k = 0; k < n; ++k) add(k);
  for (Index l = 0; l < kGroup; ++l) {
    const float product = (part[0][l] + part[1][l]) + (part[2][l] + part[3][l]);
    sum[l] = multiply_add(product, product, sum[l]);
  }
}

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

/// |L · (x - mean)|² per patch, L the lower triangular factors of `factor` [B, C·(C + 1)/2, 16]: the
/// triangles row by row, 16 patches beside each other.
template <class Embedding>
View<float> whitened_map(Out<float> out, Scratch& scratch, const Embedding& embedding,
                                View<float> mean, View<float> factor) {
  const Shape from = embedding.shape();
  require(from.rank() == 4 && mean.rank() == 2 && factor.rank() == 3,
          "WhitenedMap: wrong ranks");
  const Index channels = from[1];
  const Index patches = from[2] * from[3];
  const Index triangle = channels * (channels + 1) / 2;
  const Index groups = (patches + detail::kGroup - 1) / detail::kGroup;
  require(mean.shape() == Shape(channels, patches) &&
              factor.shape() == Shape(groups, triangle, detail::kGroup),
          "WhitenedMap: statistics do not fit the embedding");
  const Shape shape{from[0], 1, from[2], from[3]};
  float* y = out.make(shape);
  const auto group = [&](Index b, Index first, Index count, Index n, const float* gaps) {
    const float* row = factor.data() + b * triangle * detail::kGroup;
    float sum[detail::kGroup] = {};
    for (Index r = 0; r < channels; row += ++r * detail::kGroup) {
      detail::add_squared_product(row, gaps, r + 1, sum);
    }
    // The zeros above the diagonal count where a channel is not finite: 0 · infinity is NaN.
    for (Index c = 1; c < channels; ++c) {
      for (Index l = 0; l < detail::kGroup; ++l) sum[l] += 0.0f * gaps[c * detail::kGroup + l];
    }
    copy_elements(sum, count, y + n * patches + first);
  };
  detail::each_group(scratch, embedding, mean, group);
  return {y, shape};
}

/// (x - mean)ᵀ · inverse · (x - mean) per patch, at least 0.
template <class Embedding>
View<float> mahalanobis_map(Out<float> out, Scratch& scratch, const Embedding& embedding,
                                   View<float> mean, View<float> inverse) {
  const Shape from = embedding.shape();
  require(from.rank() == 4 && mean.rank() == 2 && inverse.rank() == 3,
          "MahalanobisMap: wrong ranks");
  const Index channels = from[1];
  const Index patches = from[2] * from[3];
  require(mean.shape() == Shape(channels, patches) &&
              inverse.shape() == Shape(patches, channels, channels),
          "MahalanobisMap: statistics do not fit the embedding");
  const Shape shape{from[0], 1, from[2], from[3]};
  float* y = out.make(shape);
  const auto group = [&](Index, Index first, Index count, Index n, float* gaps) {
    float* const gap = gaps + channels * detail::kGroup;
    float* const turned = gap + channels;
    for (Index l = 0; l < count; ++l) {
      for (Index c = 0; c < channels; ++c) gap[c] = gaps[c * detail::kGroup + l];
      const float* matrix = inverse.data() + (first + l) * channels * channels;
      const float form = detail::quadratic_form(matrix, gap, channels, turned);
      y[n * patches + first + l] = math::max(form, 0.0f);
    }
  };
  detail::each_group(scratch, embedding, mean, group);
  return {y, shape};
}

}  // namespace adc::op
