// The distance of two vectors in some of the columns is a lower bound of their distance: a row that is
// too far there is too far. Of each 32 columns 16 are kept, which a vector instruction can pick: those
// in which the rows differ most. Features behind a ReLU have many columns that are nearly always zero,
// so that half of them hold nearly everything; half the columns are half the work.
#include "bank_half.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>

namespace adc::search {
namespace {

constexpr double kShare = 0.9;  // of the rows' squared differences, which half the columns must hold
constexpr int kPickedOf = 2 * kLanes;

float up(double value) { return std::nextafter(static_cast<float>(value * (1 + 1e-12)), std::numeric_limits<float>::infinity()); }

// The sum over the rows of squared differences from their mean, by column.
std::vector<double> spread(const BankView& b) {
    std::vector<double> out(static_cast<std::size_t>(b.stride), 0.0);
    for (std::int64_t c = 0; c < b.columns; ++c) {
        double mean = 0, sum = 0;
        for (std::int64_t r = 0; r < b.rows; ++r) mean += static_cast<double>(b.row(r)[c]);
        mean /= static_cast<double>(b.rows);
        for (std::int64_t r = 0; r < b.rows; ++r) {
            const double difference = static_cast<double>(b.row(r)[c]) - mean;
            sum += difference * difference;
        }
        out[static_cast<std::size_t>(c)] = sum;
    }
    return out;
}

// The columns to keep, ascending. Empty where they do not hold enough.
std::vector<std::int64_t> columns_to_keep(const BankView& b) {
    const std::vector<double> square = spread(b);
    const auto of = [&](std::int64_t column) { return square[static_cast<std::size_t>(column)]; };
    std::vector<std::int64_t> kept;
    double held = 0;
    for (std::int64_t first = 0; first < b.stride; first += kPickedOf) {
        std::int64_t order[kPickedOf];
        std::iota(order, order + kPickedOf, first);
        std::stable_sort(order, order + kPickedOf, [&](std::int64_t i, std::int64_t j) { return of(i) > of(j); });
        std::sort(order, order + kLanes);
        kept.insert(kept.end(), order, order + kLanes);
        for (int j = 0; j < kLanes; ++j) held += of(order[j]);
    }
    if (held < kShare * std::accumulate(square.begin(), square.end(), 0.0)) kept.clear();
    return kept;
}

// Codes of one row's point u, four columns side by side, and its terms. Gives its length plus its error.
double quantise(const std::vector<double>& u, std::int8_t* codes, float* terms) {
    double largest = 0, miss = 0, square = 0, length = 0;
    for (const double value : u) {
        largest = std::max(largest, std::fabs(value));
        length += value * value;
    }
    const float step = largest > 1e-30 ? static_cast<float>(largest / 127) : 1.0f;
    for (std::size_t j = 0; j < u.size(); ++j) {
        const double code = std::min(127.0, std::max(-127.0, std::nearbyint(u[j] / static_cast<double>(step))));
        const double value = code * static_cast<double>(step);
        miss += (u[j] - value) * (u[j] - value);
        square += value * value;
        codes[j / 4 * 4 * kLanes + j % 4] = static_cast<std::int8_t>(code);
    }
    const float error = up(std::sqrt(miss));
    terms[0] = step;
    terms[kLanes] = static_cast<float>(square - static_cast<double>(error) * static_cast<double>(error));
    terms[2 * kLanes] = error;
    return std::sqrt(length) * (1 + 1e-9) + static_cast<double>(error);
}

}  // namespace

bool halve(const BankView& b, HalfBank& out) {
    const std::vector<std::int64_t> kept = columns_to_keep(b);
    if (kept.empty()) return false;
    const auto columns = static_cast<std::int64_t>(kept.size());
    const auto panels = static_cast<std::size_t>(b.panels);
    if (!out.memory.allocate((kept.size() + panels * 3 * kLanes) * sizeof(float) + panels * kLanes * kept.size())) throw std::bad_alloc();
    float* centre = out.memory.as<float>();
    float* terms = centre + columns;
    std::int8_t* codes = reinterpret_cast<std::int8_t*>(terms + panels * 3 * kLanes);
    out.picks.clear();
    for (std::size_t j = 0; j < kept.size(); ++j) {
        centre[j] = b.centre[kept[j]];
        out.picks.push_back(static_cast<std::int32_t>(kept[j] % kPickedOf));
    }
    BankView& view = out.view;
    view.longest = 0;
    std::vector<double> u(kept.size());
    for (std::int64_t r = 0; r < kLanes * b.panels; ++r) {
        const std::int64_t panel = r / kLanes, lane = r % kLanes;
        float* row_terms = terms + panel * 3 * kLanes + lane;
        if (r >= b.rows) {
            row_terms[kLanes] = kFarAway;
            continue;
        }
        for (std::size_t j = 0; j < kept.size(); ++j)
            u[j] = (static_cast<double>(b.row(r)[kept[j]]) - static_cast<double>(centre[j])) * static_cast<double>(b.scale);
        view.longest = std::max(view.longest, quantise(u, codes + panel * columns * kLanes + 4 * lane, row_terms));
    }
    view.rows = b.rows;
    view.columns = view.stride = columns;
    view.code_stride = (columns + 63) / 64 * 64;
    view.panels = b.panels;
    view.scale = b.scale;
    view.query_step = b.query_step;
    view.centre = centre;
    view.picks = out.picks.data();
    view.whole.columns = columns;
    view.whole.codes = codes;
    view.whole.terms = terms;
    view.whole.thin = b.whole.thin;
    return true;
}

}  // namespace adc::search
