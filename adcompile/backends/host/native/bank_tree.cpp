// Search through bounding boxes and principal axes: skips almost every row of a bank whose rows,
// like features of a network, vary mostly along few directions.
//
// Why no neighbour is lost
// ------------------------
// Let u(v) = scale · (v − centre), with the bank's float32 centre and its power-of-two scale, in
// exact arithmetic; distances between u's are `scale` times distances between vectors. Let P have
// orthonormal columns, z = Pᵀu, and ρ = the length of u − Pz. For a query x and a row y
//     |u(x) − u(y)|² ≥ |z(x) − z(y)|² + (ρ(x) − ρ(y))²                                          (1)
//                   = |u(x)|² + |u(y)|² − 2 z(x)·z(y) − 2 ρ(x)ρ(y),                             (2)
// because the rests outside the span contribute at least the difference of their lengths. This
// holds for any leading part of P, so for 8, 16 and all axes.
//
// Rounding (e = 2^-24). The bank's side was computed in double precision and rounded once, outwards
// where it matters: |u(y)|² down, ρ(y) up, boxes outwards. On the query's side
//   * u is computed with relative error 2e per element: two roundings, as scaling is exact;
//   * a coordinate is a sum of `stride` products in blocks: its error is at most n·e·|u| with
//     n = kProjectBlock + blocks + 4, the float32 rounding of the axis and of u included; over r
//     axes the error vector is no longer than  E_r = √r · n · e · |u|;
//   * |u|² is a sum over 32 lanes, relative error (stride/32 + 10)·e;
//   * ρ² = |u|² − |z|² cancels, so an interval for ρ is used: |z|² is off by at most 2 E_r|u| + E_r².
// For (2), with Y the longest |u(y)|: exchanging z for its computed value changes the bound by at
// most 2 E_r Y, rounding the row's coordinates by 2e|u|Y, and summing t terms in float32 by
// (t + 2)·e·(Y² + 10|u|Y), whatever the order: five groups of terms, each at most 2|u|Y, as `tails`
// takes the 16-axis rest back out. These sum to the slack added to the limit. For boxes, (1) is a distance in a space in which
// the computed point is within E_8 of the true one, so √limit grows by E_8. All constants below are
// rounded up generously (factors of 1.01 and more against second-order terms), and a float32 limit
// is rounded upwards. An absolute 1e-30 covers underflow: lengths are at most 1 by choice of scale.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bank_worker.hpp"

namespace adc {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;

float up(double value) {
    // Enough for any finite double: one part in 2^22 and past the smallest normal float.
    return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37);
}

double squared_length(const float* z, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += static_cast<double>(z[i]) * static_cast<double>(z[i]);
    return sum;
}

}  // namespace

struct Worker::Bounds {
    BoxQuery box;
    float head[kHead + 1];
    float tail[kMaxAxes];
    double scale_square, square_low, box_error, head_slack, tail_slack;
    float box_limit, head_limit, tail_limit;

    Bounds(const BankView& b, const float* z, float square);
    void update(double limit);
    float tail_limit_at(double limit) const;
};

Worker::Bounds::Bounds(const BankView& b, const float* z, float square) {
    const int axes = kHead + b.tail - 2;
    const double square_error = (static_cast<double>(b.stride) / 32 + 10) * kEps;
    const double square_high = static_cast<double>(square) * (1 + square_error) + kTiny;
    const double length = std::sqrt(square_high);
    const double chain = kProjectBlock + std::ceil(static_cast<double>(b.stride) / kProjectBlock) + 4;
    const double per_axis = chain * kEps * length;
    const auto error = [&](int r) { return std::sqrt(static_cast<double>(r)) * per_axis; };
    const auto rest_square = [&](double z_square, int r) {  // upper end
        return std::max(0.0, square_high - z_square + 2.02 * error(r) * length);
    };
    square_low = static_cast<double>(square) * (1 - square_error) - kTiny;
    scale_square = static_cast<double>(b.scale) * static_cast<double>(b.scale) * (1 + 1e-6);

    const double box_square = squared_length(z, kBoxAxes);
    const double head_square = box_square + squared_length(z + kBoxAxes, kHead - kBoxAxes);
    const double all_square = head_square + squared_length(z + kHead, axes - kHead);
    for (int axis = 0; axis < kBoxAxes; ++axis) box.low[axis] = box.high[axis] = z[axis];
    const double box_low = square_low - box_square - 2.02 * error(kBoxAxes) * length;
    box.low[kBoxAxes] = static_cast<float>(std::sqrt(std::max(0.0, box_low)) * (1 - 2.4e-7));
    box.high[kBoxAxes] = up(std::sqrt(rest_square(box_square, kBoxAxes)));
    box_error = error(kBoxAxes);

    for (int axis = 0; axis < kHead; ++axis) head[axis] = -2 * z[axis];
    head[kHead] = -2 * up(std::sqrt(rest_square(head_square, kHead)));
    for (int j = 0; j < b.tail - 2; ++j) tail[j] = -2 * z[kHead + j];
    tail[b.tail - 2] = -head[kHead];
    tail[b.tail - 1] = -2 * up(std::sqrt(rest_square(all_square, axes)));

    const double products = b.longest * (b.longest + 10 * length);
    const auto slack = [&](int r, int terms) {
        return 2.02 * (error(r) + kEps * length) * b.longest + (terms + 2) * kEps * products + kTiny;
    };
    head_slack = slack(kHead, kPanelTerms);
    tail_slack = slack(axes, kPanelTerms + b.tail);
}

void Worker::Bounds::update(double limit) {
    if (limit > 1e300) {
        box_limit = head_limit = tail_limit = std::numeric_limits<float>::infinity();
        return;
    }
    const double square = limit * scale_square;
    const double reach = std::sqrt(square) + box_error;
    box_limit = up(reach * reach * (1 + 1e-5) + kTiny);
    head_limit = up(square - square_low + head_slack);
    tail_limit = tail_limit_at(limit);
}

float Worker::Bounds::tail_limit_at(double limit) const {
    if (limit > 1e300) return std::numeric_limits<float>::infinity();
    return up(limit * scale_square - square_low + tail_slack);
}

// Takes `found` rows with their bounds from rows_, bounds_; offers those that may be near.
void Worker::refine(const Bounds& bounds, Top& top, int found, int i) {
    const int last_panel_row = static_cast<int>(bank_.rows);
    int count = 0;
    for (int j = 0; j < found; ++j) {  // rows of the padding of the last panel
        rows_[count] = rows_[j];
        bounds_[count] = bounds_[j];
        count += rows_[j] < last_panel_row ? 1 : 0;
    }
    count = kernels_.tails(bank_, rows_, bounds_, count, bounds.tail, bounds.tail_limit);
    // Nearest bounds first: the limit falls quickly and spares most of the others.
    struct Candidate { float bound; std::int32_t row; };
    Candidate order[kListed * kLanes];
    for (int j = 0; j < count; ++j) order[j] = {bounds_[j], rows_[j]};
    std::sort(order, order + count, [](const Candidate& a, const Candidate& b) {
        return a.bound != b.bound ? a.bound < b.bound : a.row < b.row;
    });
    for (int j = 0; j < count && order[j].bound <= bounds.tail_limit_at(top.limit()); ++j)
        evaluate(i, &order[j].row, 1);
}

// Bounds the rows of panels_[0, panels). False when too many rows remain for this to pay.
bool Worker::scan(const Bounds& bounds, Top& top, int panels, int i) {
    const int found = kernels_.scan(bank_, panels_, panels, bounds.head, bounds.head_limit, rows_, bounds_);
    counts.after_first += static_cast<std::uint64_t>(found);
    if (panels >= 32 && found > panels * (kLanes / 4)) return false;
    refine(bounds, top, found, i);
    return true;
}

// False when the boxes and axes do not separate this query from most rows: scan densely instead.
bool Worker::tree(int i, int previous) {
    Top& top = tops_[static_cast<std::size_t>(i)];
    Bounds bounds(bank_, z_ + static_cast<std::int64_t>(i) * 16 * bank_.axis_panels, prepared_[i].square);
    if (previous >= 0) {
        // Neighbouring patches of an image resemble each other: start from what the last one found.
        std::int32_t seeds[ADC_MAX_NEIGHBOURS];
        const int count = tops_[static_cast<std::size_t>(previous)].rows(seeds);
        evaluate(i, seeds, count);
    }
    kernels_.boxes(bank_.super_boxes, static_cast<int>(bank_.supers), bounds.box, group_bounds_);
    const float* nearest = std::min_element(group_bounds_, group_bounds_ + bank_.groups);
    const std::int64_t start = nearest - group_bounds_;
    float boxes[kLanes];
    std::int32_t first = -1;
    if (top.limit() > 1e300) {
        kernels_.boxes(bank_.group_boxes + start * kBoxTerms * kLanes, 1, bounds.box, boxes);
        const std::int64_t in_group = std::min<std::int64_t>(kLanes, bank_.panels - start * kLanes);
        first = static_cast<std::int32_t>(start * kLanes + (std::min_element(boxes, boxes + in_group) - boxes));
        panels_[0] = first;
        bounds.update(top.limit());
        scan(bounds, top, 1, i);
    }
    bounds.update(top.limit());
    int listed = 0;
    for (std::int64_t group = 0; group < bank_.groups; ++group) {
        if (group_bounds_[group] > bounds.box_limit) continue;
        kernels_.boxes(bank_.group_boxes + group * kBoxTerms * kLanes, 1, bounds.box, boxes);
        const std::int64_t in_group = std::min<std::int64_t>(kLanes, bank_.panels - group * kLanes);
        for (int lane = 0; lane < in_group; ++lane) {
            const auto panel = static_cast<std::int32_t>(group * kLanes + lane);
            if (boxes[lane] > bounds.box_limit || panel == first) continue;
            panels_[listed++] = panel;
        }
        if (listed + kLanes <= kListed) continue;
        if (!scan(bounds, top, listed, i)) return false;
        bounds.update(top.limit());
        listed = 0;
    }
    return listed == 0 || scan(bounds, top, listed, i);
}

}  // namespace adc
