#include "judge.hpp"

#include <cstdio>
#include <cstring>

#include "category.hpp"
#include "detections.hpp"
#include "npy.hpp"
#include "numbers.hpp"

namespace adc {

namespace {

constexpr std::array<const char*, 4> kDetectionRoles{"boxes", "labels", "scores", "masks"};

/// Which output has which role of a detector; none without boxes and another role, or with one twice.
std::map<std::string, std::size_t> detector_outputs(const std::vector<Judged>& outputs) {
  std::map<std::string, std::size_t> group;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    for (const char* role : kDetectionRoles) {
      if (outputs[i].role == role && !group.emplace(role, i).second) return {};
    }
  }
  if (group.count("boxes") == 0 || group.size() < 2) return {};
  return group;
}

Array take_rows(const AnyView& tensor, const std::vector<Index>& rows) {
  Array taken;
  taken.dtype = tensor.dtype;
  taken.shape = tensor.shape;
  taken.shape[0] = static_cast<Index>(rows.size());
  const Index numbers = tensor.shape.product(1, tensor.shape.rank());
  const std::size_t bytes = static_cast<std::size_t>(numbers) * element_size(tensor.dtype);
  std::byte* to = taken.memory.reserve(rows.size() * bytes);
  for (const Index row : rows) {
    const auto* from = static_cast<const std::byte*>(tensor.data) + static_cast<std::size_t>(row) * bytes;
    if (bytes > 0) std::memcpy(to, from, bytes);
    to += bytes;
  }
  return taken;
}

std::string percent(double share) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%.0f %%", 100 * share);
  return text.data();
}

/// How many detections have a partner, and what is said about it.
struct Matched {
  bool enough = false;
  std::string text;
};

Matched count(const RowPairs& pairs, Index got, Index wanted, const MatchInfo& bound) {
  const Index all = std::max(got, wanted);
  const double share =
      all == 0 ? 1.0 : static_cast<double>(pairs.got.size()) / static_cast<double>(all);
  Matched matched;
  matched.enough = share >= bound.fraction;
  matched.text = percent(share) + " of " + std::to_string(all) + " detections matched";
  if (got != wanted) {
    matched.text += ": " + std::to_string(got) + " here, " + std::to_string(wanted) + " recorded";
  }
  return matched;
}

/// Every output of the group, after its rows were paired.
void judge_detections(const std::map<std::string, std::size_t>& group,
                      const std::vector<Judged>& outputs, const BundleInfo& info,
                      std::vector<Difference>& found) {
  std::map<std::string, AnyView> here;
  std::map<std::string, AnyView> there;
  for (const auto& [role, i] : group) {
    here[role] = outputs[i].got;
    there[role] = outputs[i].wanted;
  }
  const Detections got = detections_of(here);
  const Detections wanted = detections_of(there);
  if (!got.problem.empty() || !wanted.problem.empty()) {
    for (const auto& [role, i] : group) {
      found[i].why = got.problem.empty() ? "recorded: " + wanted.problem : got.problem;
    }
    return;
  }
  const RowPairs pairs = match_detections(got, wanted, info.match.iou, info.match.apart);
  const Matched matched = count(pairs, got.count, wanted.count, info.match);
  for (const auto& [role, i] : group) {
    Array left = take_rows(got.tensors.at(role), pairs.got);
    Array right = take_rows(wanted.tensors.at(role), pairs.wanted);
    Difference rows = compare(left.view(), right.view(), tolerance_of(info.run_tolerances, role));
    if (!matched.enough) {
      rows.fits = false;
      rows.why = matched.text + ", at least " + percent(info.match.fraction) + " wanted";
    }
    rows.detail = matched.text;
    found[i] = rows;
  }
}

/// An anomaly score that fits, but decides otherwise, does not fit.
void judge_decisions(const Judged& output, const ScoreInfo& score, Difference& found) {
  const std::optional<Rule> rule = scale_of(score).rule();
  if (!rule || output.got.shape != output.wanted.shape) return;
  const Reader read = reader_of(output.got.dtype);
  Index flips = 0;
  for (Index i = 0; i < output.got.shape.size(); ++i) {
    const bool here = rule->anomalous(read(output.got.data, i));
    if (here != rule->anomalous(read(output.wanted.data, i))) ++flips;
  }
  if (flips == 0) return;
  found.fits = false;
  found.why = std::to_string(flips) + " decisions flip";
}

}  // namespace

std::vector<Difference> judge(const std::vector<Judged>& outputs, const BundleInfo& info) {
  std::vector<Difference> found(outputs.size());
  const std::map<std::string, std::size_t> group = detector_outputs(outputs);
  if (!group.empty()) judge_detections(group, outputs, info, found);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Judged& output = outputs[i];
    if (group.count(output.role) > 0) continue;
    found[i] = compare(output.got, output.wanted, tolerance_of(info.run_tolerances, output.role));
    if (output.role == "score" && *info.score.method != '\0') {
      judge_decisions(output, info.score, found[i]);
    }
  }
  return found;
}

}  // namespace adc
