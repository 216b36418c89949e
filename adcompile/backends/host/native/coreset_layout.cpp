// Rounding. As in bank_bounds.cpp, with both sides computed in float32: a row's u has relative
// error 2e per element; its 16 coordinates an error vector no longer than
// E = 4 · n · e · |u|, n = kProjectBlock + blocks + 4, and |u| ≤ Y, the longest. Lengths of rests
// are kept as intervals. Comparing two rows in coordinate space is then wrong by at most 2E as a
// distance, 4EY (and second order) as a squared one.
#include "coreset_layout.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <thread>

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;

float up(double value) { return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37); }

// Calls work(first, last) on `threads` parts of [0, count).
template <class Work>
void parallel(std::int64_t count, int threads, Work work) {
    std::vector<std::thread> others;
    const std::int64_t part = (count + threads - 1) / threads;
    for (int t = 1; t < threads; ++t) {
        const std::int64_t first = std::min(count, part * t), last = std::min(count, part * (t + 1));
        others.emplace_back(work, first, last);
    }
    work(0, std::min(count, part));
    for (std::thread& t : others) t.join();
}

double square_error(const BankView& view) { return (static_cast<double>(view.stride) / 32 + 10) * kEps; }

}  // namespace

bool CoresetLayout::prepare(const adc_coreset_job& job, const Kernels& kernels) {
    const auto stride = (job.columns + 31) / 32 * 32;
    const auto wide = static_cast<std::size_t>(stride);
    view.rows = job.count;
    view.columns = job.columns;
    view.stride = stride;
    view.panels = (job.count + kLanes - 1) / kLanes;
    view.axis_panels = 1;
    view.scale = job.scale;
    const auto lanes = static_cast<std::size_t>(view.panels * kLanes);
    if (!centre_.allocate(wide * sizeof(float)) || !axes_.allocate(16 * wide * sizeof(float)) ||
        !shadow_.allocate(lanes * wide))
        return false;
    std::memcpy(centre_.data(), job.centre, static_cast<std::size_t>(job.columns) * sizeof(float));
    for (std::int64_t axis = 0; axis < 16; ++axis)
        for (std::int64_t j = 0; j < job.columns; ++j)
            axes_.as<float>()[16 * j + axis] = job.axes[axis * job.columns + j];
    rows = job.rows;
    if (stride != job.columns) {
        if (!padded_.allocate(static_cast<std::size_t>(job.count) * wide * sizeof(float))) return false;
        for (std::int64_t i = 0; i < job.count; ++i)
            std::memcpy(padded_.as<float>() + i * stride, job.rows + i * job.columns,
                        static_cast<std::size_t>(job.columns) * sizeof(float));
        rows = padded_.as<float>();
    }
    view.centre = centre_.as<float>();
    view.axes = axes_.as<float>();
    coordinates_.resize(static_cast<std::size_t>(job.count) * 16);
    squares.resize(lanes);
    errors.resize(lanes);
    rest_low.resize(lanes);
    panels.resize(lanes * kPanelTerms);
    shadow_terms_.resize(lanes * 3);
    boxes.resize(static_cast<std::size_t>(view.panels));
    view.whole.columns = stride;
    view.whole.codes = shadow_.as<std::int8_t>();
    view.whole.terms = shadow_terms_.data();

    parallel(job.count, job.threads, [&](std::int64_t first, std::int64_t last) { measure(kernels, first, last); });
    double longest = 0;
    for (std::int64_t i = 0; i < job.count; ++i)
        longest = std::max(longest, static_cast<double>(squares[static_cast<std::size_t>(i)]));
    view.longest = std::sqrt(longest * (1 + square_error(view))) + kTiny;
    const double chain = kProjectBlock + std::ceil(static_cast<double>(stride) / kProjectBlock) + 4;
    axis_error = 4 * chain * kEps * view.longest + kTiny;
    order_rows();
    parallel(view.panels, job.threads, [&](std::int64_t first, std::int64_t last) { fill(kernels, first, last); });
    coordinates_ = std::vector<float>();
    return true;
}

// Coordinates and squared lengths of rows of the job.
void CoresetLayout::measure(const Kernels& kernels, std::int64_t first, std::int64_t last) {
    constexpr int kRows = 12;
    std::vector<float> u(static_cast<std::size_t>(kRows * view.stride));
    for (std::int64_t i = first; i < last; i += kRows) {
        const int n = static_cast<int>(std::min<std::int64_t>(kRows, last - i));
        float largest;
        for (int j = 0; j < n; ++j)
            kernels.centre(view, rows + (i + j) * view.stride, u.data() + j * view.stride,
                           &squares[static_cast<std::size_t>(i + j)], &largest);
        kernels.project(view, u.data(), n, &coordinates_[static_cast<std::size_t>(i * 16)]);
    }
}

// Recursive halving along the coordinate of largest variance, until panels are compact.
void CoresetLayout::order_rows() {
    struct Part { std::int64_t first, last; };
    order.resize(static_cast<std::size_t>(view.rows));
    for (std::int64_t i = 0; i < view.rows; ++i) order[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i);
    std::vector<Part> pending{{0, view.rows}};
    while (!pending.empty()) {
        const Part part = pending.back();
        pending.pop_back();
        const std::int64_t count = part.last - part.first;
        if (count <= kLanes) continue;
        // A sample of a large part shows well enough along which axis it is long.
        const std::int64_t step = std::max<std::int64_t>(1, count / 256);
        double sum[16] = {}, square[16] = {};
        for (std::int64_t i = part.first; i < part.last; i += step) {
            const float* z = &coordinates_[static_cast<std::size_t>(order[static_cast<std::size_t>(i)]) * 16];
            for (int axis = 0; axis < 16; ++axis) {
                sum[axis] += z[axis];
                square[axis] += static_cast<double>(z[axis]) * static_cast<double>(z[axis]);
            }
        }
        const double samples = static_cast<double>((count + step - 1) / step);
        int longest = 0;
        double most = -1;
        for (int axis = 0; axis < 16; ++axis) {
            const double spread = square[axis] - sum[axis] * sum[axis] / samples;
            if (spread > most) {
                most = spread;
                longest = axis;
            }
        }
        const std::int64_t half = ((count + kLanes - 1) / kLanes + 1) / 2 * kLanes;
        const auto at = [this, longest](std::int32_t i) {
            return coordinates_[static_cast<std::size_t>(i) * 16 + static_cast<std::size_t>(longest)];
        };
        std::nth_element(order.begin() + part.first, order.begin() + part.first + half, order.begin() + part.last,
                         [&at](std::int32_t a, std::int32_t b) { return at(a) != at(b) ? at(a) < at(b) : a < b; });
        pending.push_back({part.first, part.first + half});
        pending.push_back({part.first + half, part.last});
    }
    place.resize(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) place[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
}

void CoresetLayout::fill(const Kernels& kernels, std::int64_t first_panel, std::int64_t last_panel) {
    std::vector<float> u(static_cast<std::size_t>(view.stride));
    std::vector<std::int8_t> codes(static_cast<std::size_t>(view.stride));
    for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
        BoxQuery& box = boxes[static_cast<std::size_t>(panel)];
        for (int axis = 0; axis <= kBoxAxes; ++axis) {
            box.low[axis] = std::numeric_limits<float>::max();
            box.high[axis] = std::numeric_limits<float>::lowest();
        }
        std::int8_t* shadow = shadow_.as<std::int8_t>() + panel * kLanes * view.stride;
        for (std::int64_t lane = 0; lane < kLanes && panel * kLanes + lane < view.rows; ++lane) {
            const std::int64_t stored = panel * kLanes + lane;
            float square, largest;
            kernels.centre(view, row(stored), u.data(), &square, &largest);
            const Quantised q = kernels.quantise_row(u.data(), view.stride, largest, codes.data());
            for (std::int64_t j = 0; j < view.stride; j += 4)
                std::memcpy(shadow + 16 * j + 4 * lane, &codes[static_cast<std::size_t>(j)], 4);
            fill_row(stored, q, square);
        }
    }
}

// The terms of one row, once its u is known.
void CoresetLayout::fill_row(std::int64_t stored, const Quantised& q, float square) {
    const std::int64_t panel = stored / kLanes, lane = stored % kLanes;
    float* terms = &panels[static_cast<std::size_t>(panel * kPanelTerms * kLanes + lane)];
    float* shadow_terms = &shadow_terms_[static_cast<std::size_t>(panel * 3 * kLanes + lane)];
    const auto at = static_cast<std::size_t>(stored);
    const float* z = &coordinates_[static_cast<std::size_t>(order[at]) * 16];
    const double high = static_cast<double>(square) * (1 + square_error(view)) + kTiny;
    const double low = static_cast<double>(square) * (1 - square_error(view)) - kTiny;
    const double slack = 2.02 * axis_error * std::sqrt(high);
    squares[at] = square;
    terms[0] = static_cast<float>(std::max(0.0, low * (1 - 1.2e-7)));
    BoxQuery& box = boxes[static_cast<std::size_t>(panel)];
    double inside = 0;
    const auto widen = [&box](int axis, float bottom, float top) {
        box.low[axis] = std::min(box.low[axis], bottom);
        box.high[axis] = std::max(box.high[axis], top);
    };
    for (int axis = 0; axis < kHead; ++axis) {
        terms[16 * (1 + axis)] = z[axis];
        inside += static_cast<double>(z[axis]) * static_cast<double>(z[axis]);
        if (axis < kBoxAxes) widen(axis, z[axis], z[axis]);
        if (axis != kBoxAxes - 1) continue;
        const double bottom = std::sqrt(std::max(0.0, low - inside - slack - axis_error * axis_error));
        rest_low[at] = static_cast<float>(bottom * (1 - 2.4e-7));
        widen(kBoxAxes, rest_low[at], up(std::sqrt(std::max(0.0, high - inside + slack))));
    }
    terms[16 * (1 + kHead)] = up(std::sqrt(std::max(0.0, high - inside + slack)));
    const double inflate = 1 + (static_cast<double>(view.stride) / 16 + 12) * kEps;
    errors[at] = up(q.error * inflate + 2.1 * kEps * std::sqrt(high) + kTiny);
    shadow_terms[0] = q.step;
    shadow_terms[16] = static_cast<float>(q.square);
}

}  // namespace adc::search
