#include "coreset_cells.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace adc::search {
namespace {

constexpr int kMostCells = 256;       // of_ is a byte
constexpr int kSpread = 6;            // cells, about, that list a pick
constexpr std::int64_t kBlock = 480;  // rows a thread groups at once

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Cells so small that a list is about as long as the list of the cells.
int cells_for(std::int64_t picks) {
    const auto cells = static_cast<int>(std::sqrt(2.0 * static_cast<double>(picks))) / kLanes * kLanes;
    return cells < 2 * kSpread ? 0 : std::min(kMostCells, cells);
}

}  // namespace

Cells::Cells(const CoresetLayout& layout, const Kernels& kernels, const Picks& picks, std::int64_t most)
    : layout_(layout), kernels_(kernels), picks_(picks), wanted_(cells_for(most)), centres_(layout.head_columns) {
    of_.assign(at(layout.view.rows), 0);
    seen_.assign(at(layout.view.rows), 0);
    start(1);
}

void Cells::start(int cells) {
    cells_.assign(at(cells), {Panels(layout_.head_columns), {}});
    starts_.resize(at(cells * kAges));
    values_.resize(at((cells + kLanes - 1) / kLanes * kLanes));
    near_.resize(at(cells + kLanes));
}

void Cells::update(Team& team) {
    if (cells_.size() == 1 && wanted_ != 0 && picks_.count() >= wanted_) group(team);
    for (; listed_ < picks_.count(); ++listed_) list(listed_);
}

void Cells::group(Team& team) {
    centres_.clear(wanted_);
    for (std::int32_t t = 0; t < wanted_; ++t) centres_.put(t, layout_.head_codes(picks_.row(t)), layout_.terms(picks_.row(t)).head);
    std::vector<Picks::Scratch> scratch(at(team.size()), picks_.scratch());
    team.run(layout_.view.rows, kBlock, [&](int member, std::int64_t first, std::int64_t last) {
        Picks::Scratch& s = scratch[at(member)];
        Probe probes[Picks::kTogether] = {};
        std::int32_t rows[Picks::kTogether], places[Picks::kTogether];
        for (std::int64_t i = first; i < last; i += Picks::kTogether) {
            const auto n = static_cast<int>(std::min<std::int64_t>(Picks::kTogether, last - i));
            for (int j = 0; j < n; ++j) rows[j] = static_cast<std::int32_t>(i + j);
            layout_.heads(rows, n, kernels_, s.head_codes.data(), probes);
            kernels_.closest(centres_.shadow(), s.head_codes.data(), probes, n, 0, wanted_ / kLanes, s.values.data(), places);
            for (int j = 0; j < n; ++j) of_[at(rows[j])] = static_cast<std::uint8_t>(places[j]);
        }
    });
    start(wanted_);
    std::fill(seen_.begin(), seen_.end(), 0);
    listed_ = 0;
}

void Cells::list(std::int32_t pick) {
    const std::int32_t row = picks_.row(pick);
    int count = 1;
    near_[0] = 0;
    if (cells_.size() > 1) {
        Probe probe;
        alignas(16) unsigned char codes[2 * kCoresetAxes];
        layout_.heads(&row, 1, kernels_, codes, &probe);
        kernels_.values(centres_.shadow(), codes, &probe, 1, 0, wanted_ / kLanes, values_.data());
        count = kernels_.listed(values_.data(), wanted_ / kLanes, kernels_.roughly_kth(values_.data(), wanted_ / kLanes, kSpread), near_.data());
    }
    // Where many centres are alike, all of them are as near.
    for (int i = 0; i < std::min(count, 4 * kSpread); ++i) {
        Cell& c = cells_[at(near_[at(i)])];
        c.heads.append(c.count(), layout_.head_codes(row), layout_.terms(row).head);
        c.picks.push_back(pick);
    }
}

void Cells::order(const std::int32_t* rows, int count, std::int32_t* out) {
    std::fill(starts_.begin(), starts_.end(), 0);
    keys_.resize(at(count));
    for (int i = 0; i < count; ++i) {
        const std::int32_t of = of_[at(rows[i])], behind = cells_[at(of)].count() / kLanes - seen(rows[i]) / kLanes;
        keys_[at(i)] = static_cast<std::uint16_t>(of * kAges + std::max(0, kAges - 1 - behind));
        ++starts_[keys_[at(i)]];
    }
    std::int32_t place = 0;
    for (std::int32_t& start : starts_) place += std::exchange(start, place);
    for (int i = 0; i < count; ++i) out[starts_[keys_[at(i)]]++] = rows[i];
}

// How many of the rows, from the first on, can be looked at together.
int Cells::tile(const std::int32_t* rows, int count) {
    const int most = std::min(count, picks_.together());
    int n = 1;
    while (n < most && of_[at(rows[n])] == of_[at(rows[0])]) ++n;
    return n;
}

void Cells::glance(const std::int32_t* rows, int count, Nearest& nearest, Picks::Scratch& s) {
    int n = tile(rows, count);
    const auto fetch = [&](const std::int32_t* from, int some) {
        for (int i = 0; i < some; ++i) {
            layout_.fetch(from[i]);
            nearest.fetch_bound(from[i]);
        }
    };
    fetch(rows, n);
    for (int i = 0, next = 0; i < count; i += n, n = next) {
        next = i + n < count ? tile(rows + i + n, count - i - n) : 0;
        fetch(rows + i + n, next);
        look(rows + i, n, nearest, s);
    }
}

void Cells::look(const std::int32_t* rows, int count, Nearest& nearest, Picks::Scratch& s) {
    const Cell& c = cell(rows[0]);
    std::int32_t first = c.count();
    for (int i = 0; i < count; ++i) first = std::min(first, std::exchange(seen(rows[i]), c.count()));
    if (first == c.count()) return;
    Probe probes[Picks::kTogether] = {};
    layout_.heads(rows, count, kernels_, s.head_codes.data(), probes);
    const std::int64_t end = (c.count() + kLanes - 1) / kLanes;
    for (std::int64_t panel = first / kLanes; panel < end; panel += kTagged) {
        const auto panels = static_cast<int>(std::min<std::int64_t>(kTagged, end - panel));
        std::int32_t best[Picks::kTogether];
        kernels_.closest(c.heads.shadow(), s.head_codes.data(), probes, count, panel, panels, s.values.data(), best);
        for (int i = 0; i < count; ++i) best[i] = c.picks[at(best[i])];
        picks_.lower(rows, count, best, nearest, s);
    }
}

}  // namespace adc::search
