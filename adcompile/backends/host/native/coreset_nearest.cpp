#include "coreset_nearest.hpp"

#include <algorithm>
#include <limits>

#include "bank_bounds.hpp"

namespace adc::search {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Beyond these float32 does not keep its promise: squares underflow or overflow.
constexpr float kLeast = 1e-27f, kMost = 1e30f;

}  // namespace

// The margin as for the search: a sum over 32 lanes and the roundings of difference and square.
Nearest::Nearest(const BankView& view, const Kernels& kernels)
    : view_(view), kernels_(kernels),
      scale_square_(static_cast<double>(view.scale) * static_cast<double>(view.scale)), margin_((static_cast<double>(view.stride) / 32 + 10) * kRounding) {
    const auto rows = static_cast<std::size_t>(view.rows);
    entries_.assign(rows, {kInfinity, kInfinity, {}, 0, false});
    minus_.assign((rows + kLanes - 1) / kLanes * kLanes, 1.0f);
    std::fill_n(minus_.begin(), rows, -std::numeric_limits<float>::infinity());
}

double Nearest::precise(std::int32_t row, std::int32_t pick) const {
    const float* data = view_.row(pick);
    double squared;
    kernels_.precise(view_.row(row), &data, 1, view_.stride, &squared);
    return squared * scale_square_;
}

// False when there is no room for one more candidate.
bool Nearest::take(Entry& e, std::int32_t pick, Interval squared) {
    if (squared.low > e.high) return true;
    if (e.count == 0 || squared.high < e.low) {
        e = {squared.low, std::min(squared.high, e.high), {pick}, 1, false};
        return true;
    }
    if (e.count == kCandidates) return false;
    e.picks[e.count++] = pick;
    e.low = std::min(e.low, squared.low);
    e.high = std::min(e.high, squared.high);
    e.exact = false;
    return true;
}

void Nearest::put(std::int32_t row, const Entry& e) {
    entries_[static_cast<std::size_t>(row)] = e;
    put_high(row, e.high);
}

int Nearest::far(std::int64_t first, std::int64_t last, double floor, std::int32_t* rows) const {
    const auto panels = static_cast<int>((last - first + kLanes - 1) / kLanes);
    const int count = kernels_.listed(&minus_[static_cast<std::size_t>(first)], panels, -static_cast<float>(floor * (1 - 1e-7)), rows);
    for (int i = 0; i < count; ++i) rows[i] += static_cast<std::int32_t>(first);
    return count;
}

void Nearest::lower(std::int32_t row, double high) {
    Entry& e = entries_[static_cast<std::size_t>(row)];
    if (high >= e.high) return;
    e.high = high;
    e.exact = false;
    put_high(row, high);
}

void Nearest::offer(std::int32_t row, std::int32_t pick, Interval squared) {
    Entry& e = entries_[static_cast<std::size_t>(row)];
    if (!take(e, pick, squared)) {
        tighten(row);
        take(e, pick, squared);
    }
    put_high(row, e.high);
}

void Nearest::tighten(std::int32_t row) {
    const Entry& e = entries_[static_cast<std::size_t>(row)];
    if (e.exact) return;
    float distances[kCandidates];
    kernels_.distances(view_, view_.row(row), e.picks, e.count, distances);
    Entry now = {kInfinity, kInfinity, {}, 0, false};
    for (int i = 0; i < e.count; ++i) {
        const double value = static_cast<double>(distances[i]) * scale_square_;
        const bool kept = distances[i] >= kLeast && distances[i] <= kMost;
        take(now, e.picks[i], kept ? Interval{value * (1 - margin_), value * (1 + margin_)} : Interval{0, kInfinity});
    }
    put(row, now);
    if (now.count > 1 || now.high == kInfinity) settle(row);
}

void Nearest::fetch(std::int32_t row) const {
#if defined(__GNUC__)
    const Entry& e = entries_[static_cast<std::size_t>(row)];
    for (int i = -1; i < e.count; ++i) {
        const float* data = view_.row(i < 0 ? row : e.picks[i]);
        for (std::int64_t j = 0; j < view_.stride; j += 16) __builtin_prefetch(data + j);
    }
#endif
}

void Nearest::settle(std::int32_t row) {
    const Entry& e = entries_[static_cast<std::size_t>(row)];
    if (e.exact) return;
    Entry now = {kInfinity, kInfinity, {}, 0, true};
    for (int i = 0; i < e.count; ++i) {
        const double value = precise(row, e.picks[i]);
        if (value < now.high) now = {value, value, {e.picks[i]}, 1, true};
    }
    put(row, now);
}

}  // namespace adc::search
