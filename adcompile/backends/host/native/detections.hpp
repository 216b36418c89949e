// Detections of two runs, whose order and number may differ: which are the same ones?
#pragma once

#include <map>
#include <string>
#include <vector>

#include "part.hpp"

namespace adc {

/// Boxes, labels, scores and masks of one run, by role, with one row each.
struct Detections {
  std::map<std::string, AnyView> tensors;
  Index count = 0;
  std::string problem;  // why they are not that, "" when they are
};

/// Rows of `tensors`; a leading dimension of 1 (a batch) is dropped.
[[nodiscard]] Detections detections_of(const std::map<std::string, AnyView>& tensors);

/// Row `wanted[i]` of the reference belongs to row `got[i]`.
struct RowPairs {
  std::vector<Index> got;
  std::vector<Index> wanted;
};

/// Pairs rows of equal labels whose boxes overlap by at least `iou` and whose scores differ by at most
/// `apart`, as `adcompile verify` does: the reference's best score chooses first, the largest overlap, then
/// the closest score.
[[nodiscard]] RowPairs match_detections(const Detections& got, const Detections& wanted, double iou,
                                        double apart);

}  // namespace adc
