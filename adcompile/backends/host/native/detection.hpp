// Kernels of two-stage detectors: suppression of overlapping boxes, pooling of regions.
#pragma once

#include "sort.hpp"

namespace adc::op {

namespace detail {

/// Boxes as five parallel arrays, so that one box is compared with many in vector registers.
struct BoxList {
  float* x1;
  float* y1;
  float* x2;
  float* y2;
  float* area;

  void set(Index i, const float* box, bool center) const {
    float a = box[1];
    float b = box[0];
    float c = box[3];
    float d = box[2];
    if (center) {  // [x, y, width, height]
      a = box[0] - box[2] / 2;
      b = box[1] - box[3] / 2;
      c = box[0] + box[2] / 2;
      d = box[1] + box[3] / 2;
    }
    x1[i] = std::min(a, c);
    x2[i] = std::max(a, c);
    y1[i] = std::min(b, d);
    y2[i] = std::max(b, d);
    area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i]);
  }
};

/// True when any of kept[0, count) overlaps box i of `all` by more than the limit.
inline bool suppressed(const BoxList& all, Index i, const BoxList& kept, Index count, float limit) {
  constexpr Index kBlock = 64;  // long enough for vectors, short enough for an early exit
  const float ax1 = all.x1[i];
  const float ay1 = all.y1[i];
  const float ax2 = all.x2[i];
  const float ay2 = all.y2[i];
  const float area = all.area[i];
  for (Index from = 0; from < count; from += kBlock) {
    const Index to = std::min(count, from + kBlock);
    int hits = 0;
    for (Index j = from; j < to; ++j) {
      const float width = std::min(ax2, kept.x2[j]) - std::max(ax1, kept.x1[j]);
      const float height = std::min(ay2, kept.y2[j]) - std::max(ay1, kept.y1[j]);
      const float common = std::max(width, 0.0f) * std::max(height, 0.0f);
      const float joined = area + kept.area[j] - common;
      // A NaN or an empty union compares false: nothing is suppressed.
      hits |= static_cast<int>(common / joined > limit) & static_cast<int>(joined > 0.0f);
    }
    if (hits != 0) return true;
  }
  return false;
}

inline BoxList box_list(Scratch& scratch, std::size_t which, Index n) {
  const Index stride = (n + 15) / 16 * 16;
  auto* at = scratch.take<float>(which, 5 * stride);
  return {at, at + stride, at + 2 * stride, at + 3 * stride, at + 4 * stride};
}

}  // namespace detail

/// Greedy suppression per image and class: rows [image, class, box], best score first within each.
/// boxes [images, n, 4], scores [images, classes, n]. `use_score_limit`: only scores above it.
inline View<Index> non_max_suppression(Out<Index> out, Scratch& scratch, View<float> boxes,
                                       View<float> scores, Index max_per_class, float iou_limit,
                                       bool use_score_limit, float score_limit, bool center) {
  require(boxes.rank() == 3 && boxes.dim(2) == 4, "NonMaxSuppression: boxes are not [b, n, 4]");
  require(scores.rank() == 3 && scores.dim(0) == boxes.dim(0) && scores.dim(2) == boxes.dim(1),
          "NonMaxSuppression: scores do not fit the boxes");
  const Index n = boxes.dim(1);
  const Index classes = scores.dim(1);
  const Index limit = std::min(std::max(max_per_class, Index{0}), n);
  const detail::BoxList all = detail::box_list(scratch, 0, n);
  const detail::BoxList kept = detail::box_list(scratch, 1, n);
  auto* candidates = scratch.take<Index>(2, n);
  auto* order = scratch.take<Index>(3, n);
  auto* sorted = scratch.take<float>(4, n);
  const Index rows = checked_product(checked_product(boxes.dim(0), classes), limit);
  Index* selected = scratch.take<Index>(5, checked_product(rows, 3));
  Index found = 0;
  for (Index b = 0; b < boxes.dim(0); ++b) {
    for (Index i = 0; i < n; ++i) all.set(i, boxes.data() + (b * n + i) * 4, center);
    for (Index c = 0; c < classes; ++c) {
      const float* score = scores.data() + (b * classes + c) * n;
      Index m = 0;
      for (Index i = 0; i < n; ++i) {
        if (use_score_limit && !(score[i] > score_limit)) continue;
        candidates[m] = i;
        sorted[m++] = score[i];
      }
      if (m == 0) continue;
      detail::best(sorted, m, 1, m, true, true, order);
      Index count = 0;
      for (Index k = 0; k < m && count < limit; ++k) {
        const Index i = candidates[order[k]];
        if (detail::suppressed(all, i, kept, count, iou_limit)) continue;
        kept.x1[count] = all.x1[i];
        kept.y1[count] = all.y1[i];
        kept.x2[count] = all.x2[i];
        kept.y2[count] = all.y2[i];
        kept.area[count++] = all.area[i];
        Index* row = selected + 3 * found++;
        row[0] = b;
        row[1] = c;
        row[2] = i;
      }
    }
  }
  const Shape shape{found, 3};
  Index* y = out.make(shape);
  copy_elements(selected, 3 * found, y);
  return {y, shape};
}

}  // namespace adc::op
