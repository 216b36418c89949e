// Rounding. As in bank_bounds.cpp, with both sides computed in float32: a row's u has relative
// error 2e per element; its 16 coordinates an error vector no longer than
// E = 4 · n · e · |u|, n = kProjectBlock + blocks + 4, and |u| ≤ Y, the longest. Lengths of rests
// are kept as intervals. Comparing two rows in coordinate space is then wrong by at most 2E as a
// distance, 4EY (and second order) as a squared one.
#include "coreset_layout.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "coreset_frame.hpp"

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;
constexpr double kLongest = 1e15;   // of a square, in units of the scale: beyond, the sample misled
constexpr std::int64_t kBlock = 480;  // rows a thread takes at once, a multiple of kTogether
constexpr int kTogether = 12;       // rows that Kernels::project likes to take

float up(double value) { return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37); }

double square_error(const BankView& view) { return (static_cast<double>(view.stride) / 32 + 10) * kEps; }

void reserve(AlignedBytes& bytes, std::int64_t size, bool zeros = false) {
    if (!bytes.allocate(static_cast<std::size_t>(size), zeros)) throw std::bad_alloc();
}

bool finite(const float* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i])) return false;
    return true;
}

}  // namespace

int CoresetLayout::prepare(const adc_coreset_job& job, const Kernels& kernels, Team& team) {
    view.rows = job.count;
    view.columns = job.columns;
    view.stride = (job.columns + 31) / 32 * 32;
    view.code_stride = (job.columns + 63) / 64 * 64;
    view.row_data = job.rows;
    if (view.stride != job.columns) {
        reserve(padded_, job.count * view.stride * 4, true);
        for (std::int64_t i = 0; i < job.count; ++i)
            std::memcpy(padded_.as<float>() + i * view.stride, job.rows + i * job.columns,
                        static_cast<std::size_t>(job.columns) * sizeof(float));
        view.row_data = padded_.as<float>();
    }
    reserve(centre_, view.stride * 4);
    reserve(axes_, view.stride * kLanes * 4);
    reserve(heads_, job.count * kPanelTerms * 4);
    reserve(terms_, job.count * kRowTerms * 4);
    reserve(codes_, job.count * view.code_stride);
    view.row_codes = codes_.as<std::int8_t>();
    view.row_terms = terms_.as<float>();
    choose_frame(view, view.row_data, kernels, centre_.as<float>(), axes_.as<float>());
    if (measure(kernels, team)) return ADC_OK;
    // A row is far longer than those of the sample, or not finite: seldom, so time does not matter.
    if (!finite(job.rows, job.count * job.columns)) return ADC_NOT_FINITE;
    view.scale = unit_scale(view, view.row_data, 1, kernels);
    measure(kernels, team);
    return ADC_OK;
}

// False when a row is too long for its scale or not finite.
bool CoresetLayout::measure(const Kernels& kernels, Team& team) {
    // E depends on the longest row: what the rests need of it is bounded by the rows' own lengths.
    const double chain = kProjectBlock + std::ceil(static_cast<double>(view.stride) / kProjectBlock) + 4;
    axis_error = 4 * chain * kEps;
    const auto members = static_cast<std::size_t>(team.size()), room = static_cast<std::size_t>(kTogether * view.stride);
    std::vector<double> longest(members);
    std::vector<float> scratch(members * room);
    team.run(view.rows, kBlock, [&](int member, std::int64_t first, std::int64_t last) {
        const auto m = static_cast<std::size_t>(member);
        longest[m] = std::max(longest[m], measure(kernels, first, last, &scratch[m * room]));
    });
    const double most = *std::max_element(longest.begin(), longest.end());
    view.longest = std::sqrt(most * (1 + square_error(view))) + kTiny;
    axis_error = axis_error * view.longest + kTiny;
    return most <= kLongest && most > 1 / kLongest;
}

// Everything about some rows; returns the largest squared length.
double CoresetLayout::measure(const Kernels& kernels, std::int64_t first, std::int64_t last, float* u) {
    float z[kTogether * kLanes], squares[kTogether], largest[kTogether];
    double longest = 0;
    for (std::int64_t start = first; start < last; start += kTogether) {
        const auto n = static_cast<int>(std::min<std::int64_t>(kTogether, last - start));
        for (int i = 0; i < n; ++i)
            kernels.centre(view, view.row(start + i), u + i * view.stride, &squares[i], &largest[i]);
        kernels.project(view, u, n, z);
        for (int i = 0; i < n; ++i) {
            std::int8_t* codes = codes_.as<std::int8_t>() + (start + i) * view.code_stride;
            const Quantised q = kernels.quantise_row(u + i * view.stride, view.stride, largest[i], codes);
            std::memset(codes + view.stride, 0, static_cast<std::size_t>(view.code_stride - view.stride));
            fill(start + i, z + kLanes * i, squares[i], q);
            const double square = static_cast<double>(squares[i]);
            longest = square <= longest ? longest : std::isfinite(square) ? square : 1e300;
        }
    }
    return longest;
}

void CoresetLayout::fill(std::int64_t row, const float* z, float square, const Quantised& q) {
    const double high = static_cast<double>(square) * (1 + square_error(view)) + kTiny;
    const double low = static_cast<double>(square) * (1 - square_error(view)) - kTiny;
    float* head = heads_.as<float>() + row * kPanelTerms;
    head[0] = static_cast<float>(std::max(0.0, low * (1 - 1.2e-7)));
    double inside = 0;
    for (int axis = 0; axis < kHead; ++axis) {
        head[1 + axis] = z[axis];
        inside += static_cast<double>(z[axis]) * static_cast<double>(z[axis]);
    }
    // |z|² is off by at most 2 E|u| + E², here with this row's own E.
    const double error = axis_error * std::sqrt(high) + kTiny;
    head[1 + kHead] = up(std::sqrt(std::max(0.0, high - inside + 2.02 * error * std::sqrt(high) + error * error)));
    const double inflate = 1 + (static_cast<double>(view.stride) / 16 + 12) * kEps;
    float* terms = terms_.as<float>() + row * kRowTerms;
    const float off = up(q.error * inflate + 4.1 * kEps * std::sqrt(high) + kTiny);
    terms[0] = q.step;
    terms[1] = static_cast<float>(q.square - static_cast<double>(off) * static_cast<double>(off));
    terms[2] = off;
    terms[3] = static_cast<float>(q.square);
}

void CoresetLayout::to_lane(std::int64_t row, float* lane) const {
    const float* from = head(row);
    lane[0] = from[0];
    for (int term = 1; term < kPanelTerms; ++term) lane[kLanes * term] = -2 * from[term];
}

Point CoresetLayout::point(std::int64_t row, const Kernels& kernels, void* codes) const {
    const std::int8_t* stored = view.row_codes + row * view.code_stride;
    const float* terms = view.row_terms + row * kRowTerms;
    if (kernels.code_bytes == 1) {
        std::memcpy(codes, stored, static_cast<std::size_t>(view.code_stride));
    } else {
        auto* wide = static_cast<std::int16_t*>(codes);
        for (std::int64_t j = 0; j < view.code_stride; ++j) wide[j] = stored[j];
    }
    Point p;
    p.probe = {codes, -2 * terms[0], 0, 0, 0, kernels.bias(codes, view.stride)};
    p.rest = 0;
    p.square = static_cast<double>(terms[3]);
    p.error = static_cast<double>(terms[2]);
    return p;
}

}  // namespace adc::search
