// The nearest rows of a bank of few panels. Each step takes a tile of queries: int8 codes, then the value
// of every row by them. The rows that will probably be among the nearest are evaluated in float32, for
// two queries at a time: neighbours in a feature map resemble each other and need nearly the same rows.
// Where four neighbours are the same in their last columns (bank_alike.hpp), these are looked at once for
// all four: in codes, values and float32 distances, which is why those add the last columns first.
// The distances give a limit, and any other row within it is evaluated as well. Nearly every query is
// decided by float32 distances that differ by more than their errors; Top decides the others. The bounds
// are those of bank_bounds.cpp.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bank_alike.hpp"
#include "bank_worker.hpp"

namespace adc::search {

// What the kernels need to know of the bank.
void Worker::set_near_limits() {
    double sum = 0;
    const Shadow& s = seen_.whole;
    for (std::int64_t r = 0; r < seen_.rows; ++r) sum += static_cast<double>(s.terms[(r / kLanes * s.term_count() + 2) * kLanes + r % kLanes]);
    near_limits_.usual_error = static_cast<float>(sum / static_cast<double>(seen_.rows));
    near_limits_.apart = rounded_up((1 + margin_) / (1 - margin_));
    near_limits_.smallest = Top::kSmallest;
    near_limits_.largest = Top::kLargest;
    near_limits_.scale = rounded_up(static_cast<double>(bank_.scale) * (1 + margin_));
    near_limits_.longest = rounded_up(seen_.longest);
    // As whole_point and point_of do.
    near_limits_.step = seen_.query_step;
    near_limits_.error_scale = rounded_up(static_cast<double>(seen_.query_step) * error_scale(seen_.stride));
    near_limits_.error_per_length = rounded_up(kErrorPerLength);
    near_limits_.shift_error = rounded_up(shift_error_ + kUnderflow);
}

// Codes and values of a tile's queries. False when one of them is not finite.
bool Worker::look_at_tile(int first) {
    NearTile& near = *near_;
    const float* x[kNearTile];
    for (int t = 0; t < near.count; ++t) x[t] = queries_[static_cast<std::size_t>(first + t)].x;
    // The fours are probably alike as those before them are; reading the queries once shows whether they are.
    const bool guessed = near.in_fours() && near.count % kFour == 0;
    near.stride = bank_.stride;
    if (!guessed) near.shared = shared_columns(x, near.count, bank_.stride);
    unsigned good = kernels_.encode_tile(seen_, shift_, x, near_limits_, whole_codes(first), near);
    if (guessed && !near.in_fours()) {
        near.shared = shared_columns(x, near.count, bank_.stride);
        good = kernels_.encode_tile(seen_, shift_, x, near_limits_, whole_codes(first), near);
    }
    if (near.in_fours()) counts.alike_queries += static_cast<std::uint64_t>(near.count);
    for (int t = 0; t < near.count; ++t) {
        Probe& probe = probes_[static_cast<std::size_t>(t)];
        probe = {nullptr, -2 * near_limits_.step, 0, 0, 0, near.bias[t]};
        if ((good >> t & 1) != 0) continue;
        float square;
        if (!encode(first + t, u_, &square)) return false;
        const Point& point = queries_[static_cast<std::size_t>(first + t)].whole;
        probe = point.probe;
        near.square[t] = static_cast<float>(point.square);
        near.error[t] = rounded_up(point.error);
    }
    const std::int64_t size = seen_.stride * kernels_.code_bytes, step = seen_.code_stride * kernels_.code_bytes;
    const unsigned char* codes = whole_codes(first);
    if (size != step) {
        for (int t = 0; t < near.count; ++t) std::memcpy(tile_ + t * size, codes + t * step, static_cast<std::size_t>(size));
        codes = tile_;
    }
    const int panels = static_cast<int>(bank_.panels);
    if (near.in_fours() && good == (1u << near.count) - 1)  // steps of their own give other codes
        kernels_.values_of_fours(seen_.whole, codes, probes_.get(), near.count, seen_.picks == nullptr ? near.shared : near.shared / 2, panels, values_);
    else
        kernels_.values(seen_.whole, codes, probes_.get(), near.count, 0, panels, values_);
    return true;
}

// Evaluates, of each two queries, the rows that one of them will probably need. True where these seemed too many.
bool Worker::evaluate_likely(int first, int k) {
    NearTile& near = *near_;
    kernels_.likely(values_, static_cast<int>(bank_.panels), k, slack_, near_limits_.usual_error, near);
    const bool many = kernels_.list_rows(values_, bank_.rows, near);
    const float* x[kNearTile];
    for (int t = 0; t < near.count; ++t) {
        x[t] = queries_[static_cast<std::size_t>(first + t)].x;
        if (near.found[t] <= kRanked) counts.exact += static_cast<std::uint64_t>(near.found[t]);
    }
    kernels_.listed_distances(bank_, x, near);
    return many;
}

// How far the next tile looks. To look again for one query costs about as much as a few rows too many for
// each: one in two tiles is best. It changes what is evaluated, never the answer.
void Worker::set_slack(bool many, int more) {
    if (many)
        slack_ -= 0.05f;
    else
        slack_ += more == 0 ? -0.004f : 0.006f * static_cast<float>(more);
    slack_ = std::min(1.3f, std::max(1.0f, slack_));
}

// Adds to the list of query t of a tile the rows that its k-th distance does not rule out, and orders it
// again. False: not decided.
bool Worker::add_within(int first, int t, int k) {
    NearTile& near = *near_;
    const int panels = static_cast<int>(bank_.panels);
    int found = kernels_.collect(seen_.whole, values_ + t * panels * kLanes, 0, panels, near.seen[t], near.slope[t], near.limit[t], rows_);
    while (found > 0 && rows_[found - 1] >= bank_.rows) --found;  // padding of the last panel
    std::int32_t* rows = near.rows[t / 2];
    const int known = near.found[t];
    int count = known;
    for (int j = 0; j < found; ++j) {
        if (std::find(rows, rows + known, rows_[j]) != rows + known) continue;
        if (count == kRanked) return false;
        rows[count++] = rows_[j];
    }
    kernels_.distances(bank_, queries_[static_cast<std::size_t>(first + t)].x, rows + known, count - known, near.distances[t] + known);
    counts.exact += static_cast<std::uint64_t>(count - known);
    near.found[t] = count;
    return kernels_.in_order(near, t, k, near_limits_);
}

// Offers all rows that may be near to query t of a tile to its Top, which decides in double precision where
// it must. False when the query is not finite.
bool Worker::decide_slowly(int first, int t, int k) {
    const NearTile& near = *near_;
    const int i = first + t, panels = static_cast<int>(bank_.panels);
    start_list(i, k);
    if (!queries_[static_cast<std::size_t>(i)].slow && std::isfinite(near.kth[t])) {
        offer(i, rows_, kernels_.collect(seen_.whole, values_ + t * panels * kLanes, 0, panels, std::numeric_limits<float>::lowest(),
                                         near.slope[t], near.limit[t], rows_));
        return true;
    }
    if (!finite(i)) return false;  // what is wrong may be in columns that were not compared
    ++counts.slow_queries;
    exhaustive(i);
    return true;
}

// False when a query is not finite.
bool Worker::nearest(const Batch& batch, std::int64_t start, int all) {
    NearTile& near = *near_;
    const int k = batch.k;
    for (int first = 0; first < all; first += kNearTile) {
        near.count = std::min(all - first, kNearTile);
        if (!look_at_tile(first)) return false;
        const bool many = evaluate_likely(first, k);
        const unsigned decided = kernels_.order_all(near, k, near_limits_);
        const unsigned more = kernels_.not_listed(seen_.whole, values_, bank_.rows, near_limits_, near);
        set_slack(many, __builtin_popcount(more));
        for (int t = 0; t < near.count; ++t) {
            const int i = first + t;
            const std::int64_t at = batch.place(start + i) * k;
            std::int64_t* index = batch.indices + at;
            double* square = batch.squared + at;
            const bool slow = queries_[static_cast<std::size_t>(i)].slow;
            if (!slow && (decided >> t & 1) != 0 && ((more >> t & 1) == 0 || add_within(first, t, k))) {
                for (int j = 0; j < k; ++j) {
                    index[j] = bank_.order[near.sorted_rows[t][j]];
                    square[j] = static_cast<double>(near.sorted[t][j]);
                }
                continue;
            }
            if (!decide_slowly(first, t, k)) return false;
            tops_[static_cast<std::size_t>(i)].finish(index, square);
        }
    }
    return true;
}

}  // namespace adc::search
