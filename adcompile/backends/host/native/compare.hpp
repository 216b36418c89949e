// Comparison with recorded tensors.
#pragma once

#include <optional>
#include <string>

#include "bundle_info.hpp"

namespace adc {

struct Difference {
  bool fits = false;
  double worst = 0;       // largest |difference|
  Index permuted = 0;     // rows that were found in another place
  std::string detail;     // signal to noise or matched detections in words, where they were the measure
  std::optional<double> snr_db;  // only where it is too small
  std::string why;        // one sentence when it does not fit
};

/// The bound for a role; unknown roles are treated as "tensor".
[[nodiscard]] ToleranceInfo tolerance_of(const std::vector<ToleranceInfo>& table,
                                         const std::string& role);

/// Compares element by element, or by signal-to-noise ratio where the tolerance has one.
[[nodiscard]] Difference compare(const AnyView& got, const AnyView& wanted,
                                 const ToleranceInfo& tolerance);

/// Compares by signal-to-noise ratio, which must be at least `snr_db`. NaN and infinities must agree.
[[nodiscard]] Difference compare_signal(const AnyView& got, const AnyView& wanted, double snr_db);

/// Compares tensors that share their first dimension, allowing one common reordering of rows:
/// detections with equal scores may come in any order. `got` and `wanted` have the same length.
[[nodiscard]] std::vector<Difference> compare_rows(const std::vector<AnyView>& got,
                                                   const std::vector<AnyView>& wanted,
                                                   const std::vector<ToleranceInfo>& tolerances);

}  // namespace adc
