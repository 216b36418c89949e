// Outputs of the model where devices had a part in them, judged as `adcompile verify` judges them.
#pragma once

#include "compare.hpp"

namespace adc {

/// One output, of this run and as recorded.
struct Judged {
  std::string role;
  AnyView got;
  AnyView wanted;
};

/// Boxes, labels, scores and masks are compared together as detections, whatever their order and number:
/// so many must have a partner (MatchInfo), and partners are compared. An anomaly score must lead to the
/// same decision. Everything else is compared value by value.
[[nodiscard]] std::vector<Difference> judge(const std::vector<Judged>& outputs,
                                            const BundleInfo& info);

}  // namespace adc
