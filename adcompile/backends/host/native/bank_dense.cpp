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

namespace adc {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;

float up(double value) {
    return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37);
}

}  // namespace

struct Worker::Dense {
    int query;
    double square;  // |x'|²
    double error;   // e_x
    double scale, longest;

    struct Test { float slope, limit; };

    Test test(double limit) const {
        const double g = std::sqrt(limit) * scale * (1 + 1e-7) + error;
        const double reach = std::sqrt(square) + longest;
        const double slack = 10 * kEps * (reach * reach + 2 * g * longest) + kTiny;
        return {-2 * up(g), up(g * g * (1 + 1e-7) - square + slack)};
    }
};

void Worker::first_panels(const Dense& d, const float* values, int panels, int k) {
    // The k smallest values of different rows give a first limit; which rows is only a guess.
    float limit = std::numeric_limits<float>::max();
    const int rows = static_cast<int>(std::min<std::int64_t>(bank_.rows, panels * kLanes));
    if (k <= kLanes && rows >= kLanes) {
        float least[kLanes];
        kernels_.lane_minima(values, panels, least);
        std::nth_element(least, least + k - 1, least + kLanes);
        limit = least[k - 1];
    }
    const int found = kernels_.collect(bank_, values, 0, panels, 0.0f, limit, rows_, row_bounds_);
    int order[kLanes * kFirstPanels];
    int count = 0;
    for (int j = 0; j < found; ++j)
        if (rows_[j] < bank_.rows) order[count++] = j;
    if (count > k)
        std::nth_element(order, order + k - 1, order + count,
                         [this](int a, int b) { return row_bounds_[a] < row_bounds_[b]; });
    std::int32_t best[ADC_MAX_NEIGHBOURS];
    const int taken = std::min(count, k);
    for (int j = 0; j < taken; ++j) best[j] = rows_[order[j]];
    evaluate(d.query, best, taken);
}

void Worker::dense_tile(Dense* tile, int count, int k) {
    float factors[kBlock];
    const std::int64_t code_bytes = bank_.stride * kernels_.code_bytes;
    for (int j = 0; j < count; ++j) {
        const Prepared& p = prepared_[tile[j].query];
        const float* u = u_ + tile[j].query * bank_.stride;
        const Quantised q = kernels_.quantise(u, bank_.stride, p.largest, codes_ + j * code_bytes);
        const double inflate = 1 + (static_cast<double>(bank_.stride) / 16 + 12) * kEps;
        tile[j].square = q.square;
        tile[j].error = q.error * inflate + 2.1 * kEps * std::sqrt(static_cast<double>(p.square)) + kTiny;
        tile[j].scale = bank_.scale;
        tile[j].longest = bank_.longest + bank_.shadow_error;
        factors[j] = -2 * q.step;
    }
    for (std::int64_t first = 0; first < bank_.panels;) {
        const bool start = first == 0;
        const int panels = static_cast<int>(
            std::min<std::int64_t>(bank_.panels - first, start ? kFirstPanels : kDensePanels));
        kernels_.dense(bank_, codes_, factors, count, first, panels, values_);
        for (int j = 0; j < count; ++j) {
            const float* values = values_ + static_cast<std::int64_t>(j) * panels * kLanes;
            Top& top = tops_[static_cast<std::size_t>(tile[j].query)];
            if (start) first_panels(tile[j], values, panels, k);
            const Dense::Test test = tile[j].test(top.limit());
            const int found = kernels_.collect(bank_, values, first, panels, test.slope, test.limit,
                                               rows_, row_bounds_);
            evaluate(tile[j].query, rows_, found);
        }
        first += panels;
    }
}

void Worker::dense(const int* list, int count, int k) {
    counts.dense_queries += static_cast<std::uint64_t>(count);
    Dense tile[kBlock];
    for (int first = 0; first < count; first += kernels_.dense_queries) {
        const int queries = std::min(count - first, kernels_.dense_queries);
        for (int j = 0; j < queries; ++j) tile[j].query = list[first + j];
        dense_tile(tile, queries, k);
    }
}

}  // namespace adc
