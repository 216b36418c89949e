#include "coreset_frame.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace adc::search {
namespace {

constexpr std::int64_t kSample = 1024;

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

void choose_frame(BankView& view, const float* rows, const Kernels& kernels, Team& team, float* centre, CoresetAxes& axes) {
    const std::int64_t step = (view.rows + kSample - 1) / kSample;
    const std::int64_t count = (view.rows + step - 1) / step;
    const auto wide = static_cast<std::size_t>(view.stride);
    std::vector<double> sum(wide);
    for (std::int64_t i = 0; i < view.rows; i += step)
        for (std::size_t j = 0; j < wide; ++j) sum[j] += static_cast<double>(rows[i * view.stride + static_cast<std::int64_t>(j)]);
    for (std::size_t j = 0; j < wide; ++j) centre[j] = static_cast<float>(sum[j] / static_cast<double>(count));
    view.centre = centre;
    view.scale = unit_scale(view, rows, step, kernels);
    std::vector<float> u(static_cast<std::size_t>(count) * wide);
    for (std::int64_t i = 0; i < count; ++i) {
        float square, largest;
        kernels.centre(view, rows + i * step * view.stride, &u[static_cast<std::size_t>(i) * wide], &square, &largest);
    }
    choose_axes(view, u.data(), count, kernels, team, axes);
}

}  // namespace adc::search
