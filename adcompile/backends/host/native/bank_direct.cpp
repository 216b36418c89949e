// Search that evaluates every pair in float32: for banks so small, or k so large beside them, that a
// good part of the rows is evaluated in any case. Nothing can be lost here: no row is left out but by
// its own distance.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

constexpr double kSmallest = 1.6155871338926322e-27;  // 2^-89: sums above keep their relative error

}  // namespace

bool Worker::directly(int k) const {
    const std::int64_t rows = bank_.half != nullptr ? kernels_.direct_half : kernels_.direct_rows;
    return bank_.panels <= kDirectPanels && bank_.rows < rows * k;
}

// Offers the k rows with the smallest values, and those that float32 cannot tell from them.
void Worker::offer_nearest(int i, const float* values, int k) {
    const int panels = static_cast<int>(bank_.panels);
    float limit = std::numeric_limits<float>::infinity();
    if (k <= kLanes && bank_.rows >= kLanes) {
        // k rows are no farther than `least` (1 + margin), and a row beyond the limit is farther than
        // that: the third margin covers the rounding of this very number. Where least underflows, its
        // error is still far below kSmallest. Infinite sums stand for more than any finite one.
        const double least = static_cast<double>(kernels_.roughly_kth(values, panels, k));
        const double beyond = std::max(least * (1 + 3 * margin_), kSmallest);
        if (beyond <= static_cast<double>(std::numeric_limits<float>::max())) limit = static_cast<float>(beyond);
    }
    int found = kernels_.collect(bank_.whole, values, 0, panels, std::numeric_limits<float>::lowest(), 0.0f, limit, rows_);
    while (found > 0 && rows_[found - 1] >= bank_.rows) --found;  // padding of the last panel
    float distances[kRanked];
    for (int first = 0; first < found; first += kRanked) {
        const int taken = std::min(found - first, kRanked);
        for (int j = 0; j < taken; ++j) distances[j] = values[rows_[first + j]];
        tops_[static_cast<std::size_t>(i)].offer(rows_ + first, distances, taken);
    }
}

// False when a query is not finite.
bool Worker::direct(int count, int k) {
    const std::int64_t stride = kLanes * bank_.panels;
    for (int i = 0; i < count; i += kDirectTile) {
        const int tile = std::min(kDirectTile, count - i);
        const float* x[kDirectTile];
        for (int t = 0; t < tile; ++t) x[t] = queries_[static_cast<std::size_t>(i + t)].x;
        kernels_.all_distances(bank_, x, tile, values_);
        for (int t = 0; t < tile; ++t) {
            const float* values = values_ + t * stride;
            // A value that is not finite leaves no distance finite; nor may very long vectors.
            if (!std::isfinite(values[0])) {
                if (!finite(i + t)) return false;
                exhaustive(i + t);
                continue;
            }
            offer_nearest(i + t, values, k);
        }
        counts.exact += static_cast<std::uint64_t>(tile) * static_cast<std::uint64_t>(bank_.rows);
    }
    return true;
}

}  // namespace adc::search
