// How few pairs are looked at, and why the farthest row is never missed
// ----------------------------------------------------------------------
// A row's distance to the picks is only known as of some pick (`done`); later picks can only make it
// smaller. A round sets a floor below the last radius and brings those rows up to date whose known
// distance is at least the floor: on all threads, each row against all the picks it has not seen.
// Rows that are still as far make up the pool. While the farthest row of the pool is at least as
// far as the floor, no other row can be farther or as far, so only the pool has to be compared
// with each new pick. When it has run dry, the next round begins.
//
// For a row and a pick, two bounds come before an exact evaluation: the distance along 16 principal
// axes and the rest (Kernels::heads), and that of int8 copies (Kernels::check). Both are safe under
// rounding (coreset_layout.cpp, bank_bounds.cpp); exact distances are in double precision.
#include "coreset_rounds.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <new>

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kBlock = 128;  // rows a thread takes at once
constexpr std::int64_t kPanelSize = kPanelTerms * kLanes;
constexpr double kFirstShrink = 0.02, kLeastShrink = 0.0005, kMostShrink = 0.5;
constexpr std::size_t kFewRows = 400, kManyRows = 1000;  // of a pool

float up(double value) { return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37); }

// No less than the squared distance, scaled, of the point to one with this value and error.
double farthest(const BankView& view, const Point& p, float value, float error) {
    const double e = static_cast<double>(error);
    const double terms = (p.length() + view.longest) * (p.length() + view.longest);
    const double apart = static_cast<double>(value) + e * e + p.square + 14 * kEps * terms + kTiny;
    const double reach = std::sqrt(std::max(0.0, apart)) + p.error + e;
    return reach * reach * (1 + 1e-7);
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t panels_of(std::int64_t rows) { return (rows + kLanes - 1) / kLanes; }

// Panels without a row: every bound is infinite.
void clear(std::vector<float>& heads, std::int64_t panels) {
    heads.assign(at(panels * kPanelSize), 0.0f);
    for (std::int64_t i = 0; i < panels * kLanes; ++i)
        heads[at(i / kLanes * kPanelSize + i % kLanes)] = std::numeric_limits<float>::infinity();
}

float* lane_of(std::vector<float>& heads, std::int64_t i) { return &heads[at(i / kLanes * kPanelSize + i % kLanes)]; }

}  // namespace

// Order of the heap: the top is the farthest, the lowest number among equals.
struct Rounds::Nearer {
    bool operator()(const Farthest& a, const Farthest& b) const {
        return a.squared != b.squared ? a.squared < b.squared : a.row > b.row;
    }
};

Rounds::Rounds(const CoresetLayout& layout, const Kernels& kernels, Team& team, std::int64_t picks)
    : layout_(layout), view_(layout.view), kernels_(kernels), team_(team), floor_(kInfinity), shrink_(kFirstShrink) {
    const double y = view_.longest;
    scale_square_ = static_cast<double>(view_.scale) * static_cast<double>(view_.scale);
    head_slack_ = 4.1 * layout.axis_error * y + (kPanelTerms + 6) * kEps * 13 * y * y + kTiny;
    nearest_.assign(at(view_.rows), kInfinity);
    done_.assign(at(view_.rows), 0);
    lane_.assign(at(view_.rows), -1);
    picks_.reserve(at(picks));
    clear(pick_heads_, panels_of(picks));
    if (!pick_codes_.allocate(at(picks * view_.code_stride), false)) throw std::bad_alloc();
    pick_terms_.resize(at(picks * kRowTerms));
    pick_view_ = view_;
    pick_view_.row_codes = pick_codes_.as<std::int8_t>();
    pick_view_.row_terms = pick_terms_.data();
    const std::int64_t blocks = (view_.rows + kBlock - 1) / kBlock;
    found_.resize(at(blocks * kBlock));
    counts_.resize(at(blocks));
    scratch_.resize(at(team.size()));
    for (Scratch& s : scratch_) {
        s.codes.resize(at(view_.code_stride * kernels.code_bytes));
        // Room for every pick; the first one, which also works on the pool, for every row.
        const std::int64_t most = (panels_of(&s == scratch_.data() ? view_.rows : picks) + 1) * kLanes;
        s.values.resize(at(most));
        s.checked.resize(at(most));
        s.near.resize(at(most));
    }
}

float Rounds::head_limit(double u_square) const { return up(u_square * (1 + 1e-6) + head_slack_); }

Rounds::Farthest Rounds::pick(std::int32_t row) {
    add(row);
    for (;;) {
        while (!heap_.empty()) {
            const Farthest top = heap_.front();
            const double now = nearest_[at(top.row)];
            if (now == top.squared) return top;
            std::pop_heap(heap_.begin(), heap_.end(), Nearer());
            heap_.pop_back();
            if (now < floor_ || now < 0) continue;
            heap_.push_back({now, top.row});
            std::push_heap(heap_.begin(), heap_.end(), Nearer());
        }
        if (seen_ == view_.rows) return {-1, 0};
        start_round();
    }
}

void Rounds::add(std::int32_t row) {
    const std::int64_t t = seen_++;
    picks_.push_back(row);
    layout_.to_lane(row, lane_of(pick_heads_, t));
    std::copy_n(view_.row_codes + row * view_.code_stride, view_.code_stride, pick_codes_.as<std::int8_t>() + t * view_.code_stride);
    std::copy_n(view_.row_terms + row * kRowTerms, kRowTerms, &pick_terms_[at(t * kRowTerms)]);
    // At distance 0 nothing comes nearer.
    if (!heap_.empty() && heap_.front().squared > 0) thin_pool(row);
    nearest_[at(row)] = -1;
}

// Compares the pool with a new pick, which is its farthest row.
void Rounds::thin_pool(std::int32_t pick) {
    Scratch& s = scratch_[0];
    const auto panels = static_cast<int>(panels_of(static_cast<std::int64_t>(pool_.size())));
    const double u_square = nearest_[at(pick)] * scale_square_;
    kernels_.heads(pool_heads_.data(), panels, layout_.head(pick), s.values.data());
    int count = kernels_.listed(s.values.data(), panels, head_limit(u_square), s.near.data());
    for (int i = 0; i < count; ++i) s.near[at(i)] = pool_[at(s.near[at(i)])];
    Point p = layout_.point(pick, kernels_, s.codes.data());
    p.reach(view_, u_square);
    count = kernels_.check(view_, p.probe, s.near.data(), count, s.checked.data());
    for (int i = 0; i < count; ++i) {
        const std::int32_t row = s.near[at(i)];
        double& nearest = nearest_[at(row)];
        if (row != pick) {
            p.reach(view_, nearest * scale_square_);
            if (s.checked[at(i)] + p.probe.slope * view_.row_terms[row * kRowTerms + 2] > p.probe.limit) continue;
        }
        const float* data = view_.row(row);
        double squared = -1;
        if (row != pick) kernels_.precise(view_.row(pick), &data, 1, view_.stride, &squared);
        if (squared >= nearest) continue;
        nearest = squared;
        if (squared >= floor_) continue;
        *lane_of(pool_heads_, lane_[at(row)]) = std::numeric_limits<float>::infinity();
        done_[at(row)] = static_cast<std::int32_t>(seen_);
    }
}

// The exact distance of a row to all the picks.
void Rounds::catch_up(std::int32_t row, Scratch& s) {
    const std::int64_t first = done_[at(row)] / kLanes;
    const auto panels = static_cast<int>(panels_of(seen_) - first);
    const auto base = static_cast<std::int32_t>(first * kLanes);
    const float least = kernels_.heads(&pick_heads_[at(first * kPanelSize)], panels, layout_.head(row), s.values.data());
    Point p = layout_.point(row, kernels_, s.codes.data());
    double& nearest = nearest_[at(row)];
    // The int8 distance to the pick that seems nearest along the axes limits the search for others.
    double limit = nearest * scale_square_;
    if (kernels_.listed(s.values.data(), panels, least, s.near.data()) > 0) {
        s.near[0] += base;
        const float error = pick_terms_[at(s.near[0] * kRowTerms + 2)];
        p.probe.limit = std::numeric_limits<float>::infinity();
        if (kernels_.check(pick_view_, p.probe, s.near.data(), 1, s.checked.data()) == 1)
            limit = std::min(limit, farthest(view_, p, s.checked[0], error));
    }
    int count = kernels_.listed(s.values.data(), panels, head_limit(limit), s.near.data());
    for (int i = 0; i < count; ++i) s.near[at(i)] += base;
    p.reach(view_, limit);
    count = kernels_.check(pick_view_, p.probe, s.near.data(), count, s.checked.data());
    // The pick that seems nearest first: the others are seldom needed then.
    const auto best = std::min_element(s.checked.begin(), s.checked.begin() + count) - s.checked.begin();
    for (std::int64_t i = -1; i < count; ++i) {
        if (count == 0 || i == best) continue;
        const std::int64_t t = s.near[at(i < 0 ? best : i)];
        const float value = s.checked[at(i < 0 ? best : i)];
        if (value + p.probe.slope * pick_terms_[at(t * kRowTerms + 2)] > p.probe.limit) continue;
        const float* data = view_.row(picks_[at(t)]);
        double squared;
        kernels_.precise(view_.row(row), &data, 1, view_.stride, &squared);
        if (squared >= nearest) continue;
        nearest = squared;
        p.reach(view_, squared * scale_square_);
    }
    done_[at(row)] = static_cast<std::int32_t>(seen_);
}

void Rounds::start_round() {
    floor_ *= 1 - shrink_;
    fill_pool();
    if (pool_.empty()) {
        // No row is that far: what is known of the others says where to go on. In the first round,
        // where nothing is known before, all rows come back.
        shrink_ = std::min(kMostShrink, shrink_ * 1.5);
        floor_ = *std::max_element(nearest_.begin(), nearest_.end()) * (1 - shrink_);
        fill_pool();
    }
    if (pool_.size() < kFewRows) shrink_ = std::min(kMostShrink, shrink_ * 1.3);
    if (pool_.size() > kManyRows) shrink_ = std::max(kLeastShrink, shrink_ / 1.5);
}

// A pool of kManyRows and their equals; the floor rises accordingly.
void Rounds::keep_farthest() {
    std::vector<double> known(pool_.size());
    std::transform(pool_.begin(), pool_.end(), known.begin(), [this](std::int32_t row) { return nearest_[at(row)]; });
    std::nth_element(known.begin(), known.begin() + kManyRows, known.end(), std::greater<double>());
    floor_ = known[kManyRows];
    const auto near = [this](std::int32_t row) { return nearest_[at(row)] < floor_; };
    pool_.erase(std::remove_if(pool_.begin(), pool_.end(), near), pool_.end());
}

void Rounds::fill_pool() {
    team_.run(view_.rows, kBlock, [this](int member, std::int64_t first, std::int64_t last) {
        std::int64_t count = 0;
        for (std::int64_t i = first; i < last; ++i) {
            if (nearest_[at(i)] < floor_) continue;
            const auto row = static_cast<std::int32_t>(i);
            if (done_[at(i)] < seen_) catch_up(row, scratch_[at(member)]);
            if (nearest_[at(i)] >= floor_) found_[at(first + count++)] = row;
        }
        counts_[at(first / kBlock)] = count;
    });
    pool_.clear();
    for (std::size_t block = 0; block < counts_.size(); ++block) {
        const auto from = found_.begin() + static_cast<std::ptrdiff_t>(block * kBlock);
        pool_.insert(pool_.end(), from, from + counts_[block]);
    }
    if (pool_.size() > 2 * kManyRows) keep_farthest();
    const auto size = static_cast<std::int64_t>(pool_.size());
    clear(pool_heads_, panels_of(size));
    heap_.clear();
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int32_t row = pool_[at(i)];
        layout_.to_lane(row, lane_of(pool_heads_, i));
        lane_[at(row)] = static_cast<std::int32_t>(i);
        heap_.push_back({nearest_[at(row)], row});
    }
    std::make_heap(heap_.begin(), heap_.end(), Nearer());
}

}  // namespace adc::search
