#include "coreset_frame.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <numeric>
#include <vector>

namespace adc::search {
namespace {

constexpr std::int64_t kSample = 512;

// The columns in which the sample spreads most come first.
void choose_halves(const std::vector<float>& spread, CoresetFrame& out) {
    out.order.resize(spread.size());
    double all = 0, first = 0;
    for (std::size_t block = 0; block < spread.size(); block += 32) {
        std::uint8_t* order = &out.order[block];
        const float* here = &spread[block];
        std::iota(order, order + 32, static_cast<std::uint8_t>(0));
        std::stable_sort(order, order + 32, [here](std::uint8_t a, std::uint8_t b) { return here[a] > here[b]; });
        for (int i = 0; i < 32; ++i) {
            all += static_cast<double>(here[order[i]]);
            if (i < 16) first += static_cast<double>(here[order[i]]);
        }
    }
    out.first_half = all > 0 ? first / all : 0;  // NaN where a row is not finite: found later
}

}  // namespace

float unit_scale(const BankView& view, const float* rows, std::int64_t step, const Kernels& kernels) {
    double longest = 0;
    for (std::int64_t i = 0; i < view.rows; i += step) {
        const float* row = rows + i * view.stride;
        double square;
        kernels.precise(view.centre, &row, 1, view.stride, &square);
        if (!std::isfinite(square)) return 1;
        longest = std::max(longest, square);
    }
    int exponent = 0;
    if (longest > 0) std::frexp(std::sqrt(longest), &exponent);
    return std::ldexp(1.0f, std::min(100, std::max(-100, -exponent)));
}

void choose_frame(BankView& view, const float* rows, const Kernels& kernels, Team& team, CoresetFrame& out) {
    const std::int64_t step = (view.rows + kSample - 1) / kSample;
    const std::int64_t count = (view.rows + step - 1) / step;
    const auto wide = static_cast<std::size_t>(view.stride);
    if (!out.centre.allocate(wide * sizeof(float))) throw std::bad_alloc();
    std::vector<double> sum(wide);
    for (std::int64_t i = 0; i < view.rows; i += step)
        for (std::size_t j = 0; j < wide; ++j) sum[j] += static_cast<double>(rows[i * view.stride + static_cast<std::int64_t>(j)]);
    auto* centre = out.centre.as<float>();
    for (std::size_t j = 0; j < wide; ++j) centre[j] = static_cast<float>(sum[j] / static_cast<double>(count));
    view.centre = centre;
    view.scale = unit_scale(view, rows, step, kernels);
    std::vector<float> u(static_cast<std::size_t>(count) * wide);
    std::vector<float> spread(wide);
    for (std::int64_t i = 0; i < count; ++i) {
        float square, largest;
        float* row = &u[static_cast<std::size_t>(i) * wide];
        kernels.centre(view, rows + i * step * view.stride, row, &square, &largest);
        for (std::size_t j = 0; j < wide; ++j) spread[j] += row[j] * row[j];
    }
    choose_halves(spread, out);
    choose_axes(view, u.data(), count, out.order.data(), kernels, team, out.axes);
}

}  // namespace adc::search
