// The nearest row of a bank of few panels. Each step takes a tile of queries: int8 codes, the value of
// every row by them, in float32 the row that looks nearest, which gives a limit, then the few others
// within it. Nearly every query is decided by float32 distances that differ by more than their errors;
// Top decides the others. The bounds are those of bank_bounds.cpp.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {

// Codes, values and, of each query, the row with the smallest value. False when a query is not finite.
bool Worker::look_at_tile(int first, int tile, std::int32_t* looks) {
    const std::int64_t size = seen_.stride * kernels_.code_bytes, step = seen_.code_stride * kernels_.code_bytes;
    const int panels = static_cast<int>(bank_.panels);
    for (int t = 0; t < tile; ++t) {
        if (!encode(first + t)) return false;
        probes_[static_cast<std::size_t>(t)] = queries_[static_cast<std::size_t>(first + t)].whole.probe;
    }
    const unsigned char* codes = whole_codes(first);
    if (size != step) {
        for (int t = 0; t < tile; ++t) std::memcpy(tile_ + t * size, codes + t * step, static_cast<std::size_t>(size));
        codes = tile_;
    }
    kernels_.values(seen_.whole, codes, probes_.get(), tile, 0, panels, values_);
    for (int t = 0; t < tile; ++t) {
        float* values = values_ + t * panels * kLanes;
        looks[t] = queries_[static_cast<std::size_t>(first + t)].slow ? 0 : kernels_.smallest(values, panels);
        values[looks[t]] = std::numeric_limits<float>::max();  // `within` is about the others
    }
    return true;
}

// Lists the other rows that may be within this squared distance (of u) of query first + t.
int Worker::within(int first, int t, double square_limit, std::int32_t* rows) {
    const int panels = static_cast<int>(bank_.panels);
    Point& point = queries_[static_cast<std::size_t>(first + t)].whole;
    point.reach(seen_, square_limit);
    return kernels_.collect(seen_.whole, values_ + t * panels * kLanes, 0, panels, std::numeric_limits<float>::lowest(),
                            point.probe.slope, point.probe.limit, rows);
}

// The nearest of these rows.
void Worker::decide(int i, const Pair& look, const std::int32_t* rows, const float* distances, int count,
                    std::int64_t* index, double* squared) {
    Pair best = look;
    bool clear = true;
    for (int j = 0; j < count; ++j) {
        const double low = static_cast<double>(distances[j]) * (1 - margin_), high = static_cast<double>(distances[j]) * (1 + margin_);
        const bool nearer = high < static_cast<double>(best.distance) * (1 - margin_);
        clear = clear && (nearer || static_cast<double>(best.distance) * (1 + margin_) < low);
        if (nearer) best = {rows[j], distances[j]};
    }
    if (clear && Top::keeps_error(best.distance)) {
        *index = bank_.order[best.row];
        *squared = static_cast<double>(best.distance);
        return;
    }
    Top& top = tops_[static_cast<std::size_t>(i)];
    top.offer(look.row, look.distance);
    for (int j = 0; j < count; ++j) top.offer(rows[j], distances[j]);
    top.finish(index, squared);
}

// False when a query is not finite.
bool Worker::nearest(int all, std::int64_t* indices, double* squared) {
    const double scale = static_cast<double>(bank_.scale), margin = (1 + margin_) * scale * scale;
    const int most = std::min(kDirectTile, kernels_.tile);
    for (int first = 0; first < all; first += most) {
        const int tile = std::min(all - first, most);
        std::int32_t looks[kDirectTile];
        float distances[kDirectTile];
        int from[kDirectTile + 1] = {};
        if (!look_at_tile(first, tile, looks)) return false;
        for (int t = 0; t < tile; ++t) pair_x_[t] = queries_[static_cast<std::size_t>(first + t)].x;
        kernels_.pair_distances(bank_, pair_x_, looks, tile, distances);
        for (int t = 0; t < tile; ++t) {
            Query& query = queries_[static_cast<std::size_t>(first + t)];
            const double limit = static_cast<double>(distances[t]) * margin;
            query.slow = query.slow || !Top::keeps_error(distances[t]) || limit > kLongest;
            from[t + 1] = from[t] + (query.slow ? 0 : within(first, t, limit, pairs_ + from[t]));
            std::fill(pair_x_ + from[t], pair_x_ + from[t + 1], query.x);
        }
        kernels_.pair_distances(bank_, pair_x_, pairs_, from[tile], pair_distances_);
        counts.exact += static_cast<std::uint64_t>(tile + from[tile]);
        for (int t = 0; t < tile; ++t) {
            const int i = first + t;
            if (!queries_[static_cast<std::size_t>(i)].slow) {
                decide(i, {looks[t], distances[t]}, pairs_ + from[t], pair_distances_ + from[t], from[t + 1] - from[t], indices + i, squared + i);
                continue;
            }
            if (!finite(i)) return false;
            ++counts.slow_queries;
            exhaustive(i);
            tops_[static_cast<std::size_t>(i)].finish(indices + i, squared + i);
        }
    }
    return true;
}

}  // namespace adc::search
