#include "detections.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "numbers.hpp"

namespace adc {

namespace {

/// Boxes without area overlap with those that are equal to this many pixels.
constexpr double kSameBox = 1e-3;
/// Overlaps are compared in steps of this, so that the score decides between boxes nearly the same.
constexpr double kStep = 1e-4;

using Box = std::array<double, 4>;  // x1 y1 x2 y2

/// Numbers of a role's tensor, NaN as 0; empty when there is no such tensor.
std::vector<double> numbers_of(const Detections& rows, const char* role) {
  const auto found = rows.tensors.find(role);
  if (found == rows.tensors.end()) return {};
  const AnyView& tensor = found->second;
  const Reader read = reader_of(tensor.dtype);
  std::vector<double> numbers;
  for (Index i = 0; i < tensor.shape.size(); ++i) {
    const double v = read(tensor.data, i);
    numbers.push_back(std::isnan(v) ? 0.0 : v);
  }
  return numbers;
}

std::vector<Box> boxes_of(const Detections& rows) {
  const std::vector<double> sides = numbers_of(rows, "boxes");
  std::vector<Box> boxes(static_cast<std::size_t>(rows.count));
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    std::copy_n(sides.begin() + static_cast<std::ptrdiff_t>(4 * i), 4, boxes[i].begin());
  }
  return boxes;
}

/// The first number of every row, 0 without such a tensor.
std::vector<double> firsts_of(const Detections& rows, const char* role) {
  const std::vector<double> numbers = numbers_of(rows, role);
  std::vector<double> firsts(static_cast<std::size_t>(rows.count));
  const std::size_t columns = numbers.size() / std::max<std::size_t>(firsts.size(), 1);
  for (std::size_t i = 0; i < firsts.size() && columns > 0; ++i) firsts[i] = numbers[i * columns];
  return firsts;
}

double area(const Box& box) {
  return std::max(box[2] - box[0], 0.0) * std::max(box[3] - box[1], 0.0);
}

/// Intersection over union, 0 … 1.
double overlap(const Box& a, const Box& b) {
  double apart = 0;
  for (std::size_t i = 0; i < a.size(); ++i) apart = std::max(apart, std::fabs(a[i] - b[i]));
  if (apart <= kSameBox) return 1;
  const double width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0);
  const double height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0);
  const double both = width * height;
  const double joined = area(a) + area(b) - both;
  return joined > 0 ? both / joined : 0;
}

std::string rows_text(const std::string& role, const Shape& shape) {
  return role + " " + shape.text();
}

}  // namespace

Detections detections_of(const std::map<std::string, AnyView>& tensors) {
  Detections rows;
  rows.tensors = tensors;
  const Shape boxes = tensors.at("boxes").shape;
  if (boxes.rank() == 3 && boxes[0] == 1) {
    for (auto& [role, tensor] : rows.tensors) {
      if (tensor.shape.rank() == 0 || tensor.shape[0] != 1) continue;
      Shape inner;
      for (int i = 1; i < tensor.shape.rank(); ++i) inner.push_back(tensor.shape[i]);
      tensor.shape = inner;
    }
  }
  const Shape& shape = rows.tensors.at("boxes").shape;
  if (shape.rank() != 2 || shape[1] != 4) {
    rows.problem = rows_text("boxes", shape) + " are not [rows, 4]";
    return rows;
  }
  rows.count = shape[0];
  for (const auto& [role, tensor] : rows.tensors) {
    if (tensor.shape.rank() > 0 && tensor.shape[0] == rows.count) continue;
    rows.problem = std::to_string(rows.count) + " boxes, but " + rows_text(role, tensor.shape);
  }
  return rows;
}

RowPairs match_detections(const Detections& got, const Detections& wanted, double iou,
                          double apart) {
  const std::vector<Box> here = boxes_of(got);
  const std::vector<Box> there = boxes_of(wanted);
  const std::vector<double> scores_here = firsts_of(got, "scores");
  const std::vector<double> scores_there = firsts_of(wanted, "scores");
  const std::vector<double> labels_here = firsts_of(got, "labels");
  const std::vector<double> labels_there = firsts_of(wanted, "labels");
  std::vector<std::size_t> order(there.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return scores_there[a] > scores_there[b];
  });
  std::vector<bool> used(here.size(), false);
  RowPairs pairs;
  for (const std::size_t w : order) {
    std::size_t best = here.size();
    double most = -1;
    double nearest = 0;
    for (std::size_t g = 0; g < here.size(); ++g) {
      if (used[g] || labels_here[g] != labels_there[w]) continue;
      const double exact = overlap(there[w], here[g]);
      if (exact < iou) continue;
      const double common = std::nearbyint(exact / kStep);
      const double difference = std::fabs(scores_here[g] - scores_there[w]);
      if (difference > apart) continue;
      if (common < most || (common == most && difference >= nearest)) continue;
      best = g;
      most = common;
      nearest = difference;
    }
    if (best == here.size()) continue;
    used[best] = true;
    pairs.got.push_back(static_cast<Index>(best));
    pairs.wanted.push_back(static_cast<Index>(w));
  }
  return pairs;
}

}  // namespace adc
