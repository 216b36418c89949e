// Comparison with recorded tensors.
#pragma once

#include <string>

#include "bundle_info.hpp"

namespace adc {

struct Difference {
  bool fits = false;
  double worst = 0;       // largest |difference|
  Index permuted = 0;     // rows that were found in another place
  std::string ratio;      // signal to noise in words, when that was compared
  double snr_db = 0;      // the same as a number; only where it is too small
  std::string why;        // one sentence when it does not fit
};

/// The bound for a role; unknown roles are treated as "tensor", tensors between parts as "part".
[[nodiscard]] ToleranceInfo tolerance_of(const BundleInfo& info, const std::string& role);

/// Compares element by element.
[[nodiscard]] Difference compare(const AnyView& got, const AnyView& wanted,
                                 const ToleranceInfo& tolerance);

/// Compares by signal-to-noise ratio, which must be at least `snr_db`.
[[nodiscard]] Difference compare_signal(const AnyView& got, const AnyView& wanted, double snr_db);

/// Compares tensors that share their first dimension, allowing one common reordering of rows:
/// detections with equal scores may come in any order. `got` and `wanted` have the same length.
[[nodiscard]] std::vector<Difference> compare_rows(const std::vector<AnyView>& got,
                                                   const std::vector<AnyView>& wanted,
                                                   const std::vector<ToleranceInfo>& tolerances);

}  // namespace adc
