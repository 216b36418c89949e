// The nearest rows of a bank of few panels. Each step takes a tile of queries: int8 codes, then the value
// of every row by them. The rows that will probably be among the nearest are evaluated in float32, for
// two queries at a time: neighbours in a feature map resemble each other and need nearly the same rows.
// Their distances give a limit, and any other row within it is evaluated as well. Nearly every query is
// decided by float32 distances that differ by more than their errors; Top decides the others. The bounds
// are those of bank_bounds.cpp.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

// How much farther the k-th row may be than it looks before a second pass is needed. It costs time only.
constexpr float kSlack = 1.04f;

}  // namespace

// Mean error of the rows' codes.
float Worker::usual_error() const {
    double sum = 0;
    const Shadow& s = seen_.whole;
    for (std::int64_t r = 0; r < seen_.rows; ++r) sum += static_cast<double>(s.terms[(r / kLanes * s.term_count() + 2) * kLanes + r % kLanes]);
    return static_cast<float>(sum / static_cast<double>(seen_.rows));
}

// Codes and values of a tile's queries. False when one of them is not finite.
bool Worker::look_at_tile(int first, int tile) {
    const std::int64_t size = seen_.stride * kernels_.code_bytes, step = seen_.code_stride * kernels_.code_bytes;
    for (int t = 0; t < tile; ++t) {
        if (!encode(first + t)) return false;
        probes_[static_cast<std::size_t>(t)] = queries_[static_cast<std::size_t>(first + t)].whole.probe;
    }
    const unsigned char* codes = whole_codes(first);
    if (size != step) {
        for (int t = 0; t < tile; ++t) std::memcpy(tile_ + t * size, codes + t * step, static_cast<std::size_t>(size));
        codes = tile_;
    }
    kernels_.values(seen_.whole, codes, probes_.get(), tile, 0, static_cast<int>(bank_.panels), values_);
    return true;
}

// A value that the k nearest rows, and few others, will not exceed.
float Worker::likely(int i, const float* values, int k) const {
    const Query& query = queries_[static_cast<std::size_t>(i)];
    if (query.slow) return std::numeric_limits<float>::lowest();
    const float square = static_cast<float>(query.whole.square);
    const float kth = kernels_.roughly_kth(values, static_cast<int>(bank_.panels), k);
    const float reach = std::sqrt(std::max(0.0f, kth + square) * kSlack) + static_cast<float>(query.whole.error) + usual_error_;
    return std::max(reach * reach - square, kth);
}

// Lists the rows that will probably be needed, those of two queries together, and evaluates them.
void Worker::evaluate_likely(int first, int tile, int k) {
    NearTile& near = *near_;
    const int panels = static_cast<int>(bank_.panels);
    for (int t = 0; t < tile; ++t) near.seen[t] = likely(first + t, values_ + t * panels * kLanes, k);
    for (int t = 0; t < tile; t += 2) {
        std::int32_t* rows = near.rows[t / 2];
        int found = kernels_.either(values_ + t * panels * kLanes, near.seen + t, std::min(2, tile - t), panels, rows);
        while (found > 0 && rows[found - 1] >= bank_.rows) --found;  // padding of the last panel
        near.count[t] = near.count[t + 1] = found;
    }
    for (int t = 0; t < tile; t += 2) {
        const int two = std::min(2, tile - t), found = near.count[t];
        if (found > kRanked) continue;
        const float* x[2] = {queries_[static_cast<std::size_t>(first + t)].x, queries_[static_cast<std::size_t>(first + t + two - 1)].x};
        kernels_.two_distances(bank_, x, two, near.rows[t / 2], found, near.distances[t], kRanked);
        counts.exact += static_cast<std::uint64_t>(two) * static_cast<std::uint64_t>(found);
    }
}

// Puts what query t of the tile evaluated in order of distance. False where float32 is not exact enough.
bool Worker::put_in_order(int t, int k) {
    NearTile& near = *near_;
    const int count = near.count[t];
    if (count < k || count > kRanked) return false;
    const std::int32_t* rows = near.rows[t / 2];
    const float* distances = near.distances[t];
    bool sound = true;
    for (int j = 0; j < count; ++j) sound &= Top::keeps_error(distances[j]);
    if (!sound) return false;
    std::uint8_t ranks[kRanked];
    kernels_.ranks(distances, count, ranks);
    for (int j = 0; j < count; ++j) {
        near.sorted[t][ranks[j]] = distances[j];
        near.sorted_rows[t][ranks[j]] = rows[j];
    }
    near.sorted[t][count] = std::numeric_limits<float>::infinity();
    return true;
}

// Adds to query t's list the rows that its k-th distance does not rule out. False: too many.
bool Worker::add_within(int first, int t, int k) {
    NearTile& near = *near_;
    const double scale = static_cast<double>(bank_.scale);
    const double limit = static_cast<double>(near.sorted[t][k - 1]) * ((1 + margin_) * scale * scale);
    if (limit > kLongest) return false;
    Query& query = queries_[static_cast<std::size_t>(first + t)];
    query.whole.reach(seen_, limit);
    const Probe& probe = query.whole.probe;
    const int panels = static_cast<int>(bank_.panels);
    int found = kernels_.collect(seen_.whole, values_ + t * panels * kLanes, 0, panels, near.seen[t], probe.slope, probe.limit, rows_);
    if (found == 0) return true;
    while (found > 0 && rows_[found - 1] >= bank_.rows) --found;  // padding of the last panel
    std::int32_t* rows = near.rows[t / 2];
    const int known = near.count[t];
    int count = known;
    for (int j = 0; j < found; ++j) {
        if (std::find(rows, rows + known, rows_[j]) != rows + known) continue;
        if (count == kRanked) return false;
        rows[count++] = rows_[j];
    }
    if (count == known) return true;
    near.count[t] = count;
    kernels_.distances(bank_, query.x, rows + known, count - known, near.distances[t] + known);
    counts.exact += static_cast<std::uint64_t>(count - known);
    return put_in_order(t, k);
}

// The answer for query t, where float32 tells its k nearest rows from each other and from the next.
bool Worker::answer(int t, int k, std::int64_t* indices, double* squared) const {
    const float* distances = near_->sorted[t];
    const std::int32_t* rows = near_->sorted_rows[t];
    bool clear = true;
    for (int j = 0; j < k; ++j) clear &= distances[j] * apart_ < distances[j + 1];
    for (int j = 0; j < k; ++j) {
        indices[j] = bank_.order[rows[j]];
        squared[j] = static_cast<double>(distances[j]);
    }
    return clear;
}

// False when a query is not finite.
bool Worker::nearest(int all, int k, std::int64_t* indices, double* squared) {
    const int most = std::min(kDirectTile, kernels_.tile);
    for (int first = 0; first < all; first += most) {
        const int tile = std::min(all - first, most);
        if (!look_at_tile(first, tile)) return false;
        evaluate_likely(first, tile, k);
        bool decided[kDirectTile];
        // Steps of all queries together: each waits for less that way.
        for (int t = 0; t < tile; ++t) decided[t] = !queries_[static_cast<std::size_t>(first + t)].slow && put_in_order(t, k);
        for (int t = 0; t < tile; ++t) decided[t] = decided[t] && add_within(first, t, k);
        for (int t = 0; t < tile; ++t) {
            const int i = first + t;
            std::int64_t* index = indices + static_cast<std::int64_t>(i) * k;
            double* square = squared + static_cast<std::int64_t>(i) * k;
            if (decided[t] && answer(t, k, index, square)) continue;
            if (!finite(i)) return false;  // what is wrong may be in columns that were not compared
            ++counts.slow_queries;
            exhaustive(i);
            tops_[static_cast<std::size_t>(i)].finish(index, square);
        }
    }
    return true;
}

}  // namespace adc::search
