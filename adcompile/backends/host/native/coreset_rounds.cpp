// How few pairs are looked at, and why the farthest row is never missed
// ----------------------------------------------------------------------
// A row's distance to the picks is only known as of some pick (`done_`); later picks can only make it
// smaller. A round sets a floor below the last radius and brings those rows up to date whose known
// distance is at least the floor, on all threads. First each is compared with the one pick that seems
// nearest of those near its cell that are new (Cells). That proves most rows nearer than the floor;
// they are left behind as they are. The others are compared with all the picks that came since `done_`.
// Rows that are still as far make up the pool. While the farthest row of the pool is at least as
// far as the floor, no other row can be farther or as far, so only the pool has to be compared
// with each new pick. When it has run dry, the next round begins.
//
// Known distances are upper bounds, close ones (Nearest). Only the farthest row's has to be exact, and
// then every other row is known to be no farther.
#include "coreset_rounds.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

namespace adc::search {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kBlock = 96;   // rows a thread takes at once
constexpr int kAges = 15;              // that are told apart
constexpr int kPanels = 128;           // of the pool, compared with a pick at once
constexpr double kFirstShrink = 0.02, kLeastShrink = 0.0005, kMostShrink = 0.2;
constexpr std::size_t kFewRows = 50, kManyRows = 125;  // of a pool

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

// Order of the heap: the top is the farthest, the lowest number among equals.
struct Rounds::Nearer {
    bool operator()(const Farthest& a, const Farthest& b) const {
        return a.squared != b.squared ? a.squared < b.squared : a.row > b.row;
    }
};

Rounds::Rounds(const CoresetLayout& layout, const Kernels& kernels, Team& team, std::int64_t picks)
    : layout_(layout), view_(layout.view), kernels_(kernels), team_(team),
      scale_square_(static_cast<double>(view_.scale) * static_cast<double>(view_.scale)),
      nearest_(view_, kernels), picks_(layout, kernels, picks), cells_(layout, kernels, picks_, picks), floor_(kInfinity), shrink_(kFirstShrink),
      pool_heads_(layout.head_columns), pool_wholes_(layout.view, layout.whole_columns) {
    done_.assign(at(view_.rows), 0);
    rounds_.assign(at(picks + 1), 0);
    lane_.assign(at(view_.rows), -1);
    members_.resize(at(team.size()));
    for (Member& m : members_) m.scratch = picks_.scratch();
}

Rounds::Farthest Rounds::pick(std::int32_t row) {
    // What comes next is probably the distance of one of these in double precision.
    for (std::size_t i = 1; i < std::min<std::size_t>(3, heap_.size()); ++i) nearest_.fetch(heap_[i].row);
    picks_.add(row);
    rounds_[at(picks_.count())] = round_;
    if (picks_.count() == 1) start(row);
    // At distance 0 nothing comes nearer.
    if (!heap_.empty() && heap_.front().squared > 0) thin_pool(row);
    nearest_.become_pick(row);
    for (;;) {
        while (!heap_.empty()) {
            const Farthest top = heap_.front();
            const double before = nearest_.squared(top.row);
            if (before == top.squared && nearest_.exact(top.row)) return {top.squared / scale_square_, top.row};
            std::pop_heap(heap_.begin(), heap_.end(), Nearer());
            heap_.pop_back();
            if (before < floor_) continue;  // it has left
            nearest_.settle(top.row);
            const double now = nearest_.squared(top.row);
            if (now < floor_) {
                leave_pool(top.row);
                continue;
            }
            heap_.push_back({now, top.row});
            std::push_heap(heap_.begin(), heap_.end(), Nearer());
        }
        if (picks_.count() == view_.rows) return {-1, 0};
        start_round();
    }
}

// A row is no farther from the first pick than both are from the centre together.
void Rounds::start(std::int32_t pick) {
    const auto length = [this](std::int32_t row) {
        const PointTerms& t = layout_.terms(row).whole;
        return std::sqrt(static_cast<double>(t.square)) + static_cast<double>(t.error);
    };
    team_.run(view_.rows, kBlock, [&](int, std::int64_t first, std::int64_t last) {
        for (auto row = static_cast<std::int32_t>(first); row < last; ++row) {
            const double most = length(row) + length(pick);
            nearest_.bound(row, most * most * (1 + 1e-6));
        }
    });
}

void Rounds::leave_pool(std::int32_t row) {
    pool_heads_.remove(lane_[at(row)]);
    done_[at(row)] = picks_.count();
}

// Compares the pool with a new pick, which is its farthest row.
void Rounds::thin_pool(std::int32_t pick) {
    Picks::Scratch& s = members_[0].scratch;
    Point head = layout_.head(pick, kernels_, s.head_codes.data());
    Point whole = layout_.whole(pick, kernels_, s.whole_codes.data());
    leave_pool(pick);
    head.reach(view_, nearest_.squared(pick));
    whole.reach(view_, nearest_.squared(pick));
    const std::int64_t end = (static_cast<std::int64_t>(pool_.size()) + kLanes - 1) / kLanes;
    for (std::int64_t panel = 0; panel < end; panel += kPanels)
        thin_panels(pick, head, whole, panel, static_cast<int>(std::min<std::int64_t>(kPanels, end - panel)));
}

void Rounds::thin_panels(std::int32_t pick, Point& head, Point& whole, std::int64_t first, int panels) {
    constexpr float lowest = std::numeric_limits<float>::lowest();
    Picks::Scratch& s = members_[0].scratch;
    kernels_.values(pool_heads_.shadow(), head.probe.codes, &head.probe, 1, first, panels, s.values.data());
    int count = kernels_.collect(pool_heads_.shadow(), s.values.data(), first, panels, lowest, head.probe.slope, head.probe.limit, s.near.data());
    count = kernels_.check(pool_wholes_.view(), whole.probe, s.near.data(), count, s.checked.data());
    for (int i = 0; i < count; ++i) {
        const std::int32_t row = pool_[at(s.near[at(i)])];
        nearest_.offer(row, pick, interval(view_, whole, s.checked[at(i)], pool_wholes_.terms(s.near[at(i)]).error));
        if (nearest_.squared(row) < floor_) leave_pool(row);
    }
}

void Rounds::start_round() {
    ++round_;
    floor_ *= 1 - shrink_;
    fill_pool();
    if (pool_.empty()) {
        // No row is that far: what is known of the others says where to go on. In the first round,
        // where nothing is known before, all rows come back.
        shrink_ = std::min(kMostShrink, shrink_ * 1.5);
        double most = -1;
        for (std::int32_t i = 0; i < view_.rows; ++i) most = std::max(most, nearest_.squared(i));
        floor_ = most * (1 - shrink_);
        fill_pool();
    }
    if (pool_.size() < kFewRows) shrink_ = std::min(kMostShrink, shrink_ * 1.3);
    if (pool_.size() > kManyRows) shrink_ = std::max(kLeastShrink, shrink_ / 1.5);
}

// A pool of kManyRows and their equals; the floor rises accordingly.
void Rounds::keep_farthest() {
    std::vector<double> known(pool_.size());
    std::transform(pool_.begin(), pool_.end(), known.begin(), [this](std::int32_t row) { return nearest_.squared(row); });
    std::nth_element(known.begin(), known.begin() + kManyRows, known.end(), std::greater<double>());
    floor_ = known[kManyRows];
    const auto near = [this](std::int32_t row) { return nearest_.squared(row) < floor_; };
    pool_.erase(std::remove_if(pool_.begin(), pool_.end(), near), pool_.end());
}

// Puts the rows that have been compared with about the same picks together, those of long ago first.
void Rounds::order_by_age() {
    const auto age = [this](std::int32_t row) {
        const std::int32_t done = done_[at(row)];
        return done == picks_.count() ? 0 : std::min(kAges, 1 + round_ - rounds_[at(done)]);
    };
    std::size_t starts[kAges + 1] = {};
    for (const std::int32_t row : far_) ++starts[age(row)];
    std::size_t place = 0;
    for (int a = kAges; a >= 0; --a) place += std::exchange(starts[a], place);
    ordered_.resize(far_.size());
    for (const std::int32_t row : far_) ordered_[starts[age(row)]++] = row;
}

// Lowers the upper ends of some rows: by the picks that seem nearest, and of those that are still as far as the
// floor by the distance in float32. Most of all rows are left behind here, though not compared with all picks. Lists
// those that are still as far and returns how many.
int Rounds::glance(Member& m, const std::int32_t* rows, int count, std::int32_t* found) {
    cells_.glance(rows, count, nearest_, m.scratch);
    int left = 0, kept = 0;
    for (int i = 0; i < count; ++i)
        if (nearest_.squared(rows[i]) >= floor_) found[left++] = rows[i];
    for (int i = 0; i < left; ++i) {
        if (i + 2 < left) nearest_.fetch(found[i + 2]);
        nearest_.sharpen(found[i]);
        if (nearest_.squared(found[i]) >= floor_) found[kept++] = found[i];
    }
    return kept;
}

// Compares some rows with all picks that they have not seen; lists those at least as far as the floor and returns how many.
int Rounds::catch_up(Member& m, const std::int32_t* rows, int count, std::int32_t* found) {
    for (int i = 0; i < count; ++i) layout_.fetch(rows[i]);
    std::int32_t least = picks_.count();
    for (int i = 0; i < count; ++i) least = std::min(least, std::exchange(done_[at(rows[i])], picks_.count()));
    if (least < picks_.count()) picks_.compare(rows, count, least, nearest_, m.scratch);
    int kept = 0;
    for (int i = 0; i < count; ++i) {
        if (i + 2 < count) nearest_.fetch(rows[i + 2]);
        if (nearest_.still_far(rows[i], floor_)) found[kept++] = rows[i];
    }
    return kept;
}

// On all threads, step(member, rows, count, found) for the rows in order, so many at once. What it lists in `found`
// becomes `out`.
template <class Step>
void Rounds::keep(std::int64_t block, std::vector<std::int32_t>& out, const Step& step) {
    const auto all = static_cast<std::int64_t>(ordered_.size());
    counts_.assign(at((all + block - 1) / block), 0);
    found_.resize(ordered_.size());
    team_.run(all, block, [&](int member, std::int64_t first, std::int64_t last) {
        counts_[at(first / block)] = step(members_[at(member)], &ordered_[at(first)], static_cast<int>(last - first), &found_[at(first)]);
    });
    out.clear();
    for (std::size_t i = 0; i < counts_.size(); ++i) {
        const auto from = found_.begin() + static_cast<std::ptrdiff_t>(i) * block;
        out.insert(out.end(), from, from + counts_[i]);
    }
}

void Rounds::fill_pool() {
    cells_.update(team_);
    far_.resize(at(view_.rows + kLanes));
    far_.resize(at(nearest_.far(0, view_.rows, floor_, far_.data())));
    ordered_.resize(far_.size());
    cells_.order(far_.data(), static_cast<int>(far_.size()), ordered_.data());
    keep(kBlock, far_, [this](auto&&... some) { return glance(some...); });
    order_by_age();
    keep(picks_.together(), pool_, [this](auto&&... some) { return catch_up(some...); });
    if (pool_.size() > 2 * kManyRows) keep_farthest();
    const auto size = static_cast<std::int64_t>(pool_.size());
    pool_heads_.clear(size);
    pool_wholes_.clear(size);
    heap_.clear();
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int32_t row = pool_[at(i)];
        pool_heads_.put(i, layout_.head_codes(row), layout_.terms(row).head);
        pool_wholes_.put(i, layout_.codes(row), layout_.whole_columns, layout_.terms(row).whole);
        lane_[at(row)] = static_cast<std::int32_t>(i);
        heap_.push_back({nearest_.squared(row), row});
    }
    std::make_heap(heap_.begin(), heap_.end(), Nearer());
}

}  // namespace adc::search
