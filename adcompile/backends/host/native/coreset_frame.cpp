#include "coreset_frame.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace adc::search {
namespace {

constexpr std::int64_t kSample = 512;
constexpr int kIterations = 5;

// Gram-Schmidt on the columns of [stride][16], `passes` times (twice is enough for any input: Giraud
// and others, 2005). What is left of a column that depends on those before it becomes zero.
void orthonormalise(float* columns, std::int64_t stride, int passes) {
    const auto wide = static_cast<std::size_t>(stride);
    std::vector<double> basis(kLanes * wide);
    for (std::size_t a = 0; a < kLanes; ++a) {
        double* v = &basis[a * wide];
        double before = 0;
        for (std::size_t j = 0; j < wide; ++j) {
            v[j] = static_cast<double>(columns[kLanes * j + a]);
            before += v[j] * v[j];
        }
        double left = before;
        for (int pass = 0; pass < passes; ++pass) {
            for (std::size_t b = 0; b < a; ++b) {
                const double* other = &basis[b * wide];
                double along = 0;
                for (std::size_t j = 0; j < wide; ++j) along += v[j] * other[j];
                for (std::size_t j = 0; j < wide; ++j) v[j] -= along * other[j];
            }
            left = 0;
            for (std::size_t j = 0; j < wide; ++j) left += v[j] * v[j];
        }
        const bool real = std::isfinite(before) && left > 1e-12 * before && left > 1e-60;
        const double inverse = real ? 1 / std::sqrt(left) : 0;
        for (std::size_t j = 0; j < wide; ++j) {
            v[j] = real ? v[j] * inverse : 0;
            columns[kLanes * j + a] = static_cast<float>(v[j]);
        }
    }
}

// Subspace iteration on the sample's covariance, from 16 of its rows.
void choose_axes(const BankView& view, const std::vector<float>& u, std::int64_t count, const Kernels& kernels,
                 float* axes) {
    const auto places = static_cast<std::size_t>(kLanes * view.stride);
    std::vector<float> z(static_cast<std::size_t>(kLanes * count));
    for (std::int64_t a = 0; a < kLanes; ++a)
        for (std::int64_t j = 0; j < view.stride; ++j)
            axes[kLanes * j + a] = u[static_cast<std::size_t>(a * count / kLanes * view.stride + j)];
    orthonormalise(axes, view.stride, 1);
    for (int i = 0; i < kIterations; ++i) {
        kernels.project(view, u.data(), static_cast<int>(count), z.data());
        std::fill(axes, axes + places, 0.0f);
        kernels.spread(view, u.data(), z.data(), static_cast<int>(count), axes);
        orthonormalise(axes, view.stride, i + 1 < kIterations ? 1 : 2);
    }
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

void choose_frame(BankView& view, const float* rows, const Kernels& kernels, float* centre, float* axes) {
    const std::int64_t step = (view.rows + kSample - 1) / kSample;
    const std::int64_t count = (view.rows + step - 1) / step;
    const auto wide = static_cast<std::size_t>(view.stride);
    std::vector<double> sum(wide);
    for (std::int64_t i = 0; i < view.rows; i += step)
        for (std::size_t j = 0; j < wide; ++j) sum[j] += static_cast<double>(rows[i * view.stride + static_cast<std::int64_t>(j)]);
    for (std::size_t j = 0; j < wide; ++j) centre[j] = static_cast<float>(sum[j] / static_cast<double>(count));
    view.centre = centre;
    view.axes = axes;
    view.axis_panels = 1;
    view.scale = unit_scale(view, rows, step, kernels);
    std::vector<float> u(static_cast<std::size_t>(count) * wide);
    for (std::int64_t i = 0; i < count; ++i) {
        float square, largest;
        kernels.centre(view, rows + i * step * view.stride, &u[static_cast<std::size_t>(i) * wide], &square, &largest);
    }
    choose_axes(view, u, count, kernels, axes);
}

}  // namespace adc::search
