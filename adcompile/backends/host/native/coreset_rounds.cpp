// How few pairs are looked at, and why the farthest row is never missed
// ----------------------------------------------------------------------
// A row's distance to the picks is only known as of some pick (`done_`); later picks can only make it
// smaller. A round sets a floor below the last radius and brings those rows up to date whose known
// distance is at least the floor: on all threads, each row against all the picks it has not seen, or
// until one of them proves that it is nearer than the floor (then `done_` stays).
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

namespace adc::search {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kBlock = 1024;  // rows a thread takes at once
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
      nearest_(view_, kernels), picks_(layout, kernels, picks), floor_(kInfinity), shrink_(kFirstShrink),
      pool_heads_(layout.head.columns) {
    done_.assign(at(view_.rows), 0);
    lane_.assign(at(view_.rows), -1);
    const std::int64_t blocks = (view_.rows + kBlock - 1) / kBlock;
    found_.resize(at(blocks * kBlock));
    counts_.resize(at(blocks));
    members_.resize(at(team.size()));
    for (Member& m : members_) {
        m.scratch = picks_.scratch();
        m.rows.resize(at(kBlock + kLanes));
        m.behind.reserve(at(kBlock));
    }
}

Rounds::Farthest Rounds::pick(std::int32_t row) {
    picks_.add(row);
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
        const float* terms = layout_.whole.terms(row);
        return std::sqrt(static_cast<double>(terms[3])) + static_cast<double>(terms[2]);
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
    Point head = layout_.head.point(pick, kernels_, s.head_codes.data());
    Point whole = layout_.whole.point(pick, kernels_, s.whole_codes.data());
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
    for (int i = 0; i < count; ++i) s.near[at(i)] = pool_[at(s.near[at(i)])];
    count = kernels_.check(view_, whole.probe, s.near.data(), count, s.checked.data());
    for (int i = 0; i < count; ++i) {
        const std::int32_t row = s.near[at(i)];
        nearest_.offer(row, pick, interval(view_, whole, s.checked[at(i)], layout_.whole.terms(row)[2]));
        if (nearest_.squared(row) < floor_) leave_pool(row);
    }
}

void Rounds::start_round() {
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

// Brings a block of rows up to date; lists those at least as far as the floor and returns how many.
std::int64_t Rounds::catch_up(int member, std::int64_t first, std::int64_t last) {
    Member& m = members_[at(member)];
    const int count = nearest_.far(first, last, floor_, m.rows.data());
    // Rows that have seen the same picks go together.
    m.behind.clear();
    for (int i = 0; i < count; ++i) {
        const std::int32_t row = m.rows[at(i)];
        if (done_[at(row)] < picks_.count()) m.behind.push_back(static_cast<std::int64_t>(done_[at(row)]) << 32 | row);
    }
    std::sort(m.behind.begin(), m.behind.end());
    std::int32_t tiles[2][Picks::kTogether];
    const auto behind = static_cast<std::int64_t>(m.behind.size());
    const int together = picks_.together();
    const auto tile_at = [&](std::int64_t i, std::int32_t* tile) {
        const auto n = static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(together, behind - i)));
        for (int j = 0; j < n; ++j) tile[j] = static_cast<std::int32_t>(m.behind[at(i + j)] & 0x7fffffff);
        picks_.fetch(tile, n);
        return n;
    };
    int n = tile_at(0, tiles[0]);
    for (std::int64_t i = 0; i < behind; i += together) {
        std::int32_t* tile = tiles[i / together % 2];
        const int next = tile_at(i + together, tiles[1 - i / together % 2]);
        const unsigned all = picks_.compare(tile, n, done_[at(tile[0])], floor_, nearest_, m.scratch);
        for (int j = 0; j < n; ++j)
            if ((all >> j & 1) != 0) done_[at(tile[j])] = picks_.count();
        n = next;
    }
    // Those still in question are seen to once their data is on the way.
    int left = 0;
    for (int i = 0; i < count; ++i)
        if (nearest_.squared(m.rows[at(i)]) >= floor_) m.rows[at(left++)] = m.rows[at(i)];
    std::int64_t found = 0;
    for (int i = 0; i < left; ++i) {
        const std::int32_t row = m.rows[at(i)];
        if (i + 2 < left) nearest_.fetch(m.rows[at(i + 2)]);
        nearest_.tighten(row);
        if (nearest_.squared(row) >= floor_) found_[at(first + found++)] = row;
    }
    return found;
}

void Rounds::fill_pool() {
    team_.run(view_.rows, kBlock, [this](int member, std::int64_t first, std::int64_t last) {
        counts_[at(first / kBlock)] = catch_up(member, first, last);
    });
    pool_.clear();
    for (std::size_t block = 0; block < counts_.size(); ++block) {
        const auto from = found_.begin() + static_cast<std::ptrdiff_t>(block * kBlock);
        pool_.insert(pool_.end(), from, from + counts_[block]);
    }
    if (pool_.size() > 2 * kManyRows) keep_farthest();
    const auto size = static_cast<std::int64_t>(pool_.size());
    pool_heads_.clear(size);
    heap_.clear();
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int32_t row = pool_[at(i)];
        pool_heads_.put(i, layout_.head.codes(row), layout_.head.terms(row));
        lane_[at(row)] = static_cast<std::int32_t>(i);
        heap_.push_back({nearest_.squared(row), row});
    }
    std::make_heap(heap_.begin(), heap_.end(), Nearer());
}

}  // namespace adc::search
