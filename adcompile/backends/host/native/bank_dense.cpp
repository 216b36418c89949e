// Scan of the whole bank through its int8 shadow, for queries that the tree cannot separate from
// most rows (noise, tiny banks): four products an instruction lane instead of one, and only rows
// that may be near are read in float32.
//
// Why no neighbour is lost
// ------------------------
// Let x' = step_x · codes_x and y' = step_y · int8_y, with |u(x) − x'| ≤ e_x and |u(y) − y'| ≤ e_y.
// A row at distance d (in u's scale) has |x' − y'| ≤ d + e_x + e_y, so it can be skipped when
//     |x'|² + |y'|² − 2 x'·y' > (t + e_x + e_y)²,   t = the limit as a distance,
// that is, with g = t + e_x,
//     (|y'|² − e_y²) − 2 step_x step_y (codes · int8) − 2 g e_y > g² − |x'|².
// The sum of products is exact in int32 (columns · 127² < 2^31). The bank's e_y is rounded up in
// double precision; e_x is the float32 length of the difference, inflated, plus the rounding of u
// itself. The left side is computed in float32 from terms no larger than (|x'| + Y)² with at most
// eight roundings and g·e_y; the slack covers them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;
constexpr std::int64_t kChunkBytes = 256 * 1024;

float up(double value) {
    return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37);
}

}  // namespace

struct Worker::Dense {
    int query;
    double square;  // |x'|²
    double length;  // |x'|
    double error;   // e_x
    double scale, longest;
    bool fresh;     // no row was offered before the scan, so none can be offered twice

    struct Test { float slope, limit; };

    Test test(double limit) const {
        const double g = std::sqrt(limit) * scale * (1 + 1e-7) + error;
        const double reach = length + longest;
        const double slack = 10 * kEps * (reach * reach + 2 * g * longest) + kTiny;
        return {-2 * up(g), up(g * g * (1 + 1e-7) - square + slack)};
    }
};

// Evaluates roughly the k rows with the smallest values: which ones is only a guess, but they give
// a limit. Returns the value up to which all rows were evaluated.
float Worker::guess(const Dense& d, const float* values, std::int64_t first, int panels, int k) {
    const bool few = k > kLanes || bank_.rows - first * kLanes < kLanes;
    const float limit = few ? std::numeric_limits<float>::max() : kernels_.roughly_kth(values, panels, k);
    const int found = kernels_.collect(bank_, values, first, panels, std::numeric_limits<float>::lowest(),
                                       0.0f, limit, rows_);
    consider(d, found);
    return limit;
}

// Offers rows_[0, count).
void Worker::consider(const Dense& d, int count) {
    if (d.fresh)
        offer(d.query, rows_, count);
    else
        evaluate(d.query, rows_, count);
}

// Codes of query `place` of the list, and what its test needs.
Worker::Dense Worker::encode(int i, int place, float* factor) {
    const Prepared& p = prepared_[i];
    unsigned char* codes = codes_ + place * bank_.stride * kernels_.code_bytes;
    const Quantised q = kernels_.quantise(u_ + i * bank_.stride, bank_.stride, p.largest, codes);
    const double inflate = 1 + (static_cast<double>(bank_.stride) / 16 + 12) * kEps;
    Dense d;
    d.fresh = false;
    d.query = i;
    d.square = q.square;
    d.length = std::sqrt(q.square);
    d.error = q.error * inflate + 2.1 * kEps * std::sqrt(static_cast<double>(p.square)) + kTiny;
    d.scale = bank_.scale;
    d.longest = bank_.longest + bank_.shadow_error;
    *factor = -2 * q.step;
    return d;
}

void Worker::dense(const int* list, int count, int k) {
    counts.dense_queries += static_cast<std::uint64_t>(count);
    Dense queries[kBlock];
    float factors[kBlock];
    for (int j = 0; j < count; ++j) {
        queries[j] = encode(list[j], j, factors + j);
        // The stored order is not random: without a limit the first panels would mislead.
        std::int32_t seeds[ADC_MAX_NEIGHBOURS];
        std::copy(seeds_, seeds_ + seed_count_, seeds);
        evaluate(list[j], seeds, seed_count_);
        queries[j].fresh = tops_[static_cast<std::size_t>(list[j])].rows(seeds) == 0;
    }
    // A chunk of the shadow stays in the second-level cache while all queries pass over it.
    const std::int64_t fitting = kChunkBytes / (kLanes * bank_.stride);
    const std::int64_t chunk = std::min<std::int64_t>(kDensePanels, std::max<std::int64_t>(4, fitting / 2 * 2));
    for (std::int64_t first = 0; first < bank_.panels;) {
        const std::int64_t wanted = first == 0 ? std::min<std::int64_t>(kFirstPanels, 2 * chunk) : chunk;
        const int panels = static_cast<int>(std::min(bank_.panels - first, wanted));
        for (int j = 0; j < count; j += kernels_.dense_queries) {
            const int tile = std::min(count - j, kernels_.dense_queries);
            kernels_.dense(bank_, codes_ + j * bank_.stride * kernels_.code_bytes, factors + j, tile,
                           first, panels, values_);
            for (int t = 0; t < tile; ++t)
                look(queries[j + t], values_ + static_cast<std::int64_t>(t) * panels * kLanes, first, panels, k);
        }
        first += panels;
    }
}

void Worker::look(const Dense& d, const float* values, std::int64_t first, int panels, int k) {
    const Top& top = tops_[static_cast<std::size_t>(d.query)];
    float seen = std::numeric_limits<float>::lowest();
    if (first == 0 || top.limit() > 1e300) seen = guess(d, values, first, panels, k);
    const Dense::Test test = d.test(top.limit());
    consider(d, kernels_.collect(bank_, values, first, panels, seen, test.slope, test.limit, rows_));
}

}  // namespace adc::search
