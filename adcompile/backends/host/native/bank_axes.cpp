// Let P be the orthonormal axes, P' their float32 values in the file and Q the int8 copy: of each axis
// a step times codes, and a smaller step times further codes. For a point x with int8 codes, Qᵀx is
// exact but for the float32 roundings of the result, and |Pᵀx - Qᵀx| <= (|P - P'| + |P' - Q|) |x| in the spectral norm. The first is at most
// √axes · 2^-24. The square of the second is at most the largest row sum of |MᵀM|, M = P' - Q: far
// less than the Frobenius norm, because the errors of different axes have little to do with each other.
#include "bank_axes.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

namespace adc::search {
namespace {

// Takes codes of one axis from `missing`, as lane `lane` of a panel; leaves what is missing then.
void copy_axis(const BankView& bank, std::int8_t* panel, float* terms, std::int64_t lane, double* missing) {
    double largest = 0;
    for (std::int64_t i = 0; i < bank.stride; ++i) largest = std::max(largest, std::fabs(missing[i]));
    const float step = largest > 1e-30 ? static_cast<float>(largest / 127) : 1.0f;
    for (std::int64_t i = 0; i < bank.stride; ++i) {
        const double code = std::min(127.0, std::max(-127.0, std::nearbyint(missing[i] / static_cast<double>(step))));
        panel[i / 4 * 4 * kLanes + 4 * lane + i % 4] = static_cast<std::int8_t>(code);
        missing[i] -= static_cast<double>(step) * code;
    }
    terms[lane] = step;
}

}  // namespace

bool copy_axes(const BankView& bank, AxesCopy& out) try {
    const auto axes = static_cast<std::size_t>(bank.axis_count()), stride = static_cast<std::size_t>(bank.stride);
    if (!out.memory.allocate(2 * axes * (stride + 3 * sizeof(float)))) return false;
    std::int8_t* codes = out.memory.as<std::int8_t>();
    float* terms = reinterpret_cast<float*>(out.memory.data() + 2 * axes * stride);
    std::fill(terms, terms + 6 * axes, 0.0f);
    std::vector<double> missing(axes * stride);
    for (std::size_t a = 0; a < axes; ++a) {
        const std::size_t panel = a / kLanes, lane = a % kLanes;
        double* left = &missing[a * stride];
        for (std::size_t i = 0; i < stride; ++i)
            left[i] = static_cast<double>(bank.axes[(panel * stride + i) * kLanes + lane]);
        for (const std::size_t at : {panel, panel + axes / kLanes})
            copy_axis(bank, codes + at * kLanes * stride, terms + at * 3 * kLanes, static_cast<std::int64_t>(lane), left);
    }
    double square = 0;
    for (std::size_t a = 0; a < axes; ++a) {
        double sum = 0;
        for (std::size_t b = 0; b < axes; ++b) {
            double product = 0;
            for (std::size_t i = 0; i < stride; ++i) product += missing[a * stride + i] * missing[b * stride + i];
            sum += std::fabs(product);
        }
        square = std::max(square, sum);
    }
    // Beside the copy: the float32 values of the axes, and of both products the conversion and the
    // factors, and their sum.
    out.error = std::sqrt(square) * (1 + 1e-9) + 16 * std::sqrt(static_cast<double>(axes)) / 16777216.0;
    out.shadow.columns = bank.stride;
    out.shadow.codes = codes;
    out.shadow.terms = terms;
    return true;
} catch (const std::bad_alloc&) {
    return false;
}

}  // namespace adc::search
