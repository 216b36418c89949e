// For a row and a pick, two bounds come before an evaluation: of their heads (Kernels::values, for a
// few rows and all picks at once), and of the whole int8 points (Kernels::check).
#include "coreset_picks.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

namespace adc::search {
namespace {

constexpr int kPanels = 128;  // taken at once
constexpr int kFewPanels = 2;  // that are compared without looking for a better limit

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

Interval interval(const BankView& view, const Point& point, float value, float error) {
    const double e = static_cast<double>(error);
    const double slack = 28 * kRounding * (point.square + view.longest * view.longest) + kUnderflow;
    const double apart = static_cast<double>(value) + e * e + point.square;
    const double least = std::max(0.0, std::sqrt(std::max(0.0, apart - slack)) - point.error - e);
    const double most = std::sqrt(std::max(0.0, apart + slack)) + point.error + e;
    return {least * least * (1 - 1e-7), most * most * (1 + 1e-7)};
}

Picks::Picks(const CoresetLayout& layout, const Kernels& kernels, std::int64_t most)
    : layout_(layout), kernels_(kernels), heads_(layout.head.columns), view_(layout.view) {
    rows_.reserve(at(most));
    heads_.clear(most);
    if (!codes_.allocate(at(most * layout.whole.columns), false)) throw std::bad_alloc();
    terms_.resize(at(most * kRowTerms));
    view_.row_codes = codes_.as<std::int8_t>();
    view_.row_terms = terms_.data();
}

Picks::Scratch Picks::scratch() const {
    const std::size_t most = kPanels * kLanes + kLanes;
    Scratch s;
    s.head_codes.resize(at(kTogether * layout_.head.columns * kernels_.code_bytes));
    s.whole_codes.resize(at(layout_.whole.columns * kernels_.code_bytes));
    s.values.resize(at(together()) * most);
    s.checked.resize(most);
    s.near.resize(most);
    return s;
}

int Picks::together() const { return std::min(kernels_.tile, kTogether); }

void Picks::add(std::int32_t row) {
    const std::int64_t t = count();
    rows_.push_back(row);
    heads_.put(t, layout_.head.codes(row), layout_.head.terms(row));
    std::copy_n(layout_.whole.codes(row), layout_.whole.columns, codes_.as<std::int8_t>() + t * layout_.whole.columns);
    std::copy_n(layout_.whole.terms(row), kRowTerms, &terms_[at(t * kRowTerms)]);
}

void Picks::fetch(const std::int32_t* rows, int count) const {
    kernels_.fetch(layout_.view, rows, count);
#if defined(__GNUC__)
    for (int i = 0; i < count; ++i) {
        for (std::int64_t c = 0; c < layout_.head.columns; c += 64) __builtin_prefetch(layout_.head.codes(rows[i]) + c);
        __builtin_prefetch(layout_.head.terms(rows[i]));
    }
#endif
}

unsigned Picks::compare(const std::int32_t* rows, int count, std::int32_t first, double floor, Nearest& nearest, Scratch& s) const {
    Point heads[kTogether];
    Probe probes[kTogether];
    const std::int64_t size = layout_.head.columns * kernels_.code_bytes;
    for (int i = 0; i < count; ++i) {
        unsigned char* codes = &s.head_codes[at(i * size)];
        heads[i] = layout_.head.point(rows[i], kernels_, codes);
        if (heads[i].probe.codes != codes) std::memcpy(codes, heads[i].probe.codes, at(size));
        probes[i] = heads[i].probe;
    }
    unsigned all = (1u << count) - 1;
    const std::int64_t end = (this->count() + kLanes - 1) / kLanes;
    for (std::int64_t panel = first / kLanes; panel < end; panel += kPanels) {
        const auto panels = static_cast<int>(std::min<std::int64_t>(kPanels, end - panel));
        kernels_.values(heads_.shadow(), s.head_codes.data(), probes, count, panel, panels, s.values.data());
        for (int i = 0; i < count; ++i)
            if ((all >> i & 1) != 0 && !compare(rows[i], heads[i], &s.values[at(i * panels * kLanes)], panel, panels, floor, nearest, s))
                all &= ~(1u << i);
    }
    return all;
}

// False when the row is left behind.
bool Picks::compare(std::int32_t row, Point head, const float* values, std::int64_t first_panel, int panels, double floor,
                    Nearest& nearest, Scratch& s) const {
    const BankView& view = layout_.view;
    Point whole = layout_.whole.point(row, kernels_, s.whole_codes.data());
    double limit = nearest.squared(row);
    if (panels > kFewPanels) {
        // The int8 distance to the pick that seems nearest by the heads limits the search.
        s.near[0] = static_cast<std::int32_t>(first_panel * kLanes) + kernels_.smallest(values, panels);
        const float error = terms_[at(s.near[0] * kRowTerms + 2)];
        whole.probe.limit = std::numeric_limits<float>::infinity();
        kernels_.check(view_, whole.probe, s.near.data(), 1, s.checked.data());
        limit = std::min(limit, interval(view, whole, s.checked[0], error).high);
        if (limit < floor) {
            nearest.lower(row, limit);
            return false;
        }
    }
    head.reach(view, limit);
    int count = kernels_.within(heads_.shadow(), values, first_panel, panels, head.probe.slope, head.probe.limit, s.near.data());
    if (count == 0) return true;
    whole.reach(view, limit);
    count = kernels_.check(view_, whole.probe, s.near.data(), count, s.checked.data());
    if (count == 0) return true;
    // The pick that seems nearest first: the others are seldom needed then.
    const auto best = std::min_element(s.checked.begin(), s.checked.begin() + count) - s.checked.begin();
    std::swap(s.near[0], s.near[at(best)]);
    std::swap(s.checked[0], s.checked[at(best)]);
    for (int i = 0; i < count; ++i) {
        const std::int32_t t = s.near[at(i)];
        nearest.offer(row, rows_[at(t)], interval(view, whole, s.checked[at(i)], terms_[at(t * kRowTerms + 2)]));
    }
    return true;
}

}  // namespace adc::search
