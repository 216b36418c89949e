#include "coreset_nearest.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "bank_bounds.hpp"

namespace adc::search {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Beyond these float32 does not keep its promise: squares underflow or overflow.
constexpr float kLeast = 1e-27f, kMost = 1e30f;

float rounded_down(double squared) { return squared > kUnderflow ? static_cast<float>(squared * (1 - 1e-7)) : 0.0f; }

}  // namespace

// The margin as for the search: a sum over 32 lanes and the roundings of difference and square.
Nearest::Nearest(const BankView& view, const Kernels& kernels)
    : view_(view), kernels_(kernels),
      scale_square_(static_cast<double>(view.scale) * static_cast<double>(view.scale)), margin_((static_cast<double>(view.stride) / 32 + 10) * kRounding) {
    const auto rows = static_cast<std::size_t>(view.rows);
    entries_.assign(rows, {kInfinity, {}, {}, kNone, 0, false});
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
    for (int i = 0; i < e.count; ++i)
        if (e.picks[i] == pick) return true;
    if (squared.high < e.high) {
        e.high = squared.high;
        e.exact = false;
        std::int8_t kept = 0;
        for (int i = 0; i < e.count; ++i) {
            if (static_cast<double>(e.lows[i]) > e.high) continue;
            e.picks[kept] = e.picks[i];
            e.lows[kept++] = e.lows[i];
        }
        e.count = kept;
    }
    if (e.count == kCandidates) return false;
    e.picks[e.count] = pick;
    e.lows[e.count++] = rounded_down(squared.low);
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

void Nearest::lower(std::int32_t row, std::int32_t pick, double high) {
    Entry& e = entries_[static_cast<std::size_t>(row)];
    if (high >= e.high) return;
    e.high = high;
    e.guess = pick;
    e.exact = false;
    put_high(row, high);
}

void Nearest::sharpen(std::int32_t row) {
    Entry& e = entries_[static_cast<std::size_t>(row)];
    if (e.guess == kNone) return;
    const std::int32_t pick = std::exchange(e.guess, kNone);
    measure(row, &pick, 1, e);
    put_high(row, e.high);
}

void Nearest::offer(std::int32_t row, std::int32_t pick, Interval squared) {
    Entry& e = entries_[static_cast<std::size_t>(row)];
    if (!take(e, pick, squared)) {
        still_far(row, 0);  // leaves one
        take(e, pick, squared);
    }
    put_high(row, e.high);
}

// Offers some picks with distances in float32.
void Nearest::measure(std::int32_t row, const std::int32_t* picks, int count, Entry& e) const {
    float distances[kCandidates];
    kernels_.distances(view_, view_.row(row), picks, count, distances);
    for (int i = 0; i < count; ++i) take(e, picks[i], interval(distances[i]));
}

// Of a squared distance that was computed in float32.
Interval Nearest::interval(float distance) const {
    if (!(distance >= kLeast && distance <= kMost)) return {0, kInfinity};
    const double value = static_cast<double>(distance) * scale_square_;
    return {value * (1 - margin_), value * (1 + margin_)};
}

bool Nearest::still_far(std::int32_t row, double floor) {
    const Entry e = entries_[static_cast<std::size_t>(row)];
    if (e.exact || e.count == 0) return e.high >= floor;
    // The one that seems nearest rules most of the others out. One that is as far as the upper end, as far as float32
    // can tell, is the one that was evaluated, or as good.
    const auto known = [&](int i) { return static_cast<double>(e.lows[i]) >= e.high * (1 - 4 * margin_); };
    const int best = e.likeliest();
    Entry now = {e.high, {}, {}, kNone, 0, false};
    if (!known(best)) measure(row, &e.picks[best], 1, now);
    std::int32_t rest[kCandidates];
    int left = 0;
    for (int i = 0; i < e.count; ++i) {
        if (static_cast<double>(e.lows[i]) > now.high || (i == best && !known(best))) continue;
        if (now.high >= floor && !known(i)) {
            rest[left++] = e.picks[i];
        } else {
            now.picks[now.count] = e.picks[i];
            now.lows[now.count++] = e.lows[i];
        }
    }
    if (left > 0) measure(row, rest, left, now);
    put(row, now);
    if (now.high < floor) return false;
    if (now.count > 1) settle(row);
    return squared(row) >= floor;
}

void Nearest::fetch(std::int32_t row) const {
#if defined(__GNUC__)
    const Entry& e = entries_[static_cast<std::size_t>(row)];
    const std::int32_t pick = e.guess != kNone ? e.guess : e.count > 0 ? e.picks[e.likeliest()] : row;
    for (const float* data : {view_.row(row), view_.row(pick)})
        for (std::int64_t j = 0; j < view_.stride; j += 16) __builtin_prefetch(data + j, 0, 2);
#endif
}

void Nearest::settle(std::int32_t row) {
    const Entry& e = entries_[static_cast<std::size_t>(row)];
    if (e.exact) return;
    Entry now = {kInfinity, {}, {}, kNone, 0, true};
    for (int i = 0; i < e.count; ++i) {
        const double value = precise(row, e.picks[i]);
        if (value < now.high) now = {value, {rounded_down(value)}, {e.picks[i]}, kNone, 1, true};
    }
    put(row, now);
}

}  // namespace adc::search
