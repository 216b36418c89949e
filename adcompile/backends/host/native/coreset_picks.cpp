// For a row and a pick, up to three bounds come before an evaluation: of their heads (Kernels::sift, for a
// few rows and all picks at once), of the halves of their int8 points, and of the whole points (Kernels::check).
#include "coreset_picks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

namespace adc::search {
namespace {

constexpr int kPanels = kTagged;  // taken at once
constexpr int kFew = 8;           // picks whose whole points are compared without their halves

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// What is known of a distance.
struct Gap {
    Gap(const BankView& view, double square, double error, float value, float other_error)
        : apart(static_cast<double>(value) + static_cast<double>(other_error) * static_cast<double>(other_error) + square),
          slack(28 * kRounding * (square + view.longest * view.longest) + kUnderflow), errors(error + static_cast<double>(other_error)) {}

    double least() const { return std::max(0.0, std::sqrt(std::max(0.0, apart - slack)) - errors); }
    double most() const { return std::sqrt(std::max(0.0, apart + slack)) + errors; }

    double apart, slack, errors;  // squared distance of the points, its rounding; how far the points may be off
};

}  // namespace

Interval interval(const BankView& view, const Point& point, float value, float error) {
    const Gap gap(view, point.square, point.error, value, error);
    const double least = gap.least(), most = gap.most();
    return {least * least * (1 - 1e-7), most * most * (1 + 1e-7)};
}

Picks::Picks(const CoresetLayout& layout, const Kernels& kernels, std::int64_t most)
    : layout_(layout), kernels_(kernels), heads_(layout.head_columns), halves_(layout.view, layout.half_columns),
      wholes_(layout.view, layout.whole_columns) {
    rows_.reserve(at(most));
    heads_.clear(most);
    halves_.clear(layout.half_columns != 0 ? most : 0);
    wholes_.clear(most);
}

Picks::Scratch Picks::scratch() const {
    const std::size_t most = kPanels * kLanes + kLanes;
    Scratch s;
    s.head_codes.resize(at(kTogether * layout_.head_columns * kernels_.code_bytes));
    s.whole_codes.resize(at(kTogether * layout_.whole_columns * kernels_.code_bytes));
    s.values.resize(most);
    s.masks.resize(at(kTogether * kPanels));
    s.checked.resize(most);
    s.near.resize(most);
    return s;
}

int Picks::together() const { return std::min(kernels_.tile, kTogether); }

void Picks::add(std::int32_t row) {
    const std::int64_t t = count();
    rows_.push_back(row);
    const RowTerms& terms = layout_.terms(row);
    heads_.put(t, layout_.head_codes(row), terms.head);
    if (layout_.half_columns != 0) halves_.put(t, layout_.codes(row), layout_.view.stride / 2, terms.half);
    wholes_.put(t, layout_.codes(row), layout_.whole_columns, terms.whole);
}

// Step by step for all rows: what one waits for, memory above all, the others hide.
void Picks::lower(const std::int32_t* rows, int count, const std::int32_t* picks, Nearest& nearest, Scratch& s) const {
    Probe probes[kTogether] = {};
    float values[kTogether];
    for (int i = 0; i < count; ++i) kernels_.fetch(wholes_.view(), &picks[i], 1);
    for (int i = 0; i < count; ++i)
        probes[i] = layout_.whole(rows[i], kernels_, &s.whole_codes[at(i * layout_.whole_columns * kernels_.code_bytes)]).probe;
    kernels_.pairs(wholes_.view(), probes, picks, count, values);
    for (int i = 0; i < count; ++i) {
        const PointTerms& terms = layout_.terms(rows[i]).whole;
        const double most = Gap(layout_.view, static_cast<double>(terms.square), static_cast<double>(terms.error), values[i], wholes_.terms(picks[i]).error).most();
        nearest.lower(rows[i], rows_[at(picks[i])], most * most * (1 + 1e-7));
    }
}

void Picks::compare(const std::int32_t* rows, int count, std::int32_t first, Nearest& nearest, Scratch& s) const {
    Probe probes[kTogether] = {};
    layout_.heads(rows, count, kernels_, s.head_codes.data(), probes);
    const std::int64_t end = (this->count() + kLanes - 1) / kLanes;
    for (std::int64_t panel = first / kLanes; panel < end; panel += kPanels) {
        const int panels = static_cast<int>(std::min<std::int64_t>(kPanels, end - panel));
        for (int i = 0; i < count; ++i) layout_.reach(rows[i], nearest.squared(rows[i]), probes[i]);
        kernels_.sift(heads_.shadow(), s.head_codes.data(), probes, count, panel, panels, s.masks.data());
        for (int i = 0; i < count; ++i)
            offer(rows[i], kernels_.within(&s.masks[at(i * panels)], panel, panels, s.near.data()), nearest, s);
    }
}

// Offers those of the listed picks that may be the nearest.
void Picks::offer(std::int32_t row, int count, Nearest& nearest, Scratch& s) const {
    const BankView& view = layout_.view;
    const double limit = nearest.squared(row);
    if (count == 0) return;
    Point whole = layout_.whole(row, kernels_, s.whole_codes.data());
    if (count > kFew && layout_.half_columns != 0) {
        Point half = layout_.half(row, whole);
        half.reach(view, limit);
        count = kernels_.check(halves_.view(), half.probe, s.near.data(), count, s.checked.data());
        if (count == 0) return;
    }
    whole.reach(view, limit);
    count = kernels_.check(wholes_.view(), whole.probe, s.near.data(), count, s.checked.data());
    if (count == 0) return;
    // The pick that seems nearest first: few of the others are in reach then.
    const auto least = std::min_element(s.checked.begin(), s.checked.begin() + count) - s.checked.begin();
    std::swap(s.near[0], s.near[at(least)]);
    std::swap(s.checked[0], s.checked[at(least)]);
    for (int i = 0; i < count; ++i) {
        const std::int32_t t = s.near[at(i)];
        const float error = wholes_.terms(t).error;
        if (i == 1) whole.reach(view, nearest.squared(row));
        if (i > 0 && s.checked[at(i)] + whole.probe.slope * error > whole.probe.limit) continue;
        nearest.offer(row, rows_[at(t)], interval(view, whole, s.checked[at(i)], error));
    }
}

}  // namespace adc::search
