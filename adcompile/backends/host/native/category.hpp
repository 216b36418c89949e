// A category of the bundle: another bank and another threshold behind the same engine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bundle_info.hpp"

namespace adc {

/// How a score becomes a decision.
struct Rule {
  bool raw = false;  // looks at the raw score
  bool or_equal = false;
  double limit = 0;

  /// A NaN means that something is broken: never normal.
  [[nodiscard]] bool anomalous(double score) const;
};

/// How raw scores become scores and decisions.
struct Scale {
  std::string normalisation = "none";  // none, min_max, cdf, sigma6
  bool has_threshold = false;
  double threshold = 0;
  double minimum = 0;
  double maximum = 0;
  double std = 1;
  double decision = 0.5;
  bool or_equal = true;

  /// The score of a raw score; NaN stays NaN.
  [[nodiscard]] double score(double raw) const;
  /// Nothing without a threshold.
  [[nodiscard]] std::optional<Rule> rule() const;
};

/// The scale of the bundle itself.
[[nodiscard]] Scale scale_of(const ScoreInfo& info);

struct Category {
  std::string name;
  Scale scale;
  std::vector<std::string> banks;  // full paths, in the order of the bundle's banks
  std::string statistics;          // full path of PaDiM's bank file, "" when the bundle's counts
  std::string statistics_sha256;   // of the whole file
};

/// Reads BUNDLE/categories/NAME and checks it: made for this build's parts, every file it lists
/// has its size and SHA-256. Fails with a sentence.
[[nodiscard]] Category read_category(const std::string& bundle, const std::string& name);

}  // namespace adc
