#include "bank_alike.hpp"

#include <algorithm>
#include <cstring>

#include "bank_kernels.hpp"

namespace adc::search {
namespace {

constexpr std::int64_t kEnough = 32;  // last columns that are compared to find out which queries are alike

bool equal(const float* x, const float* y, std::int64_t columns) {
    return std::memcmp(x, y, static_cast<std::size_t>(columns) * sizeof(float)) == 0;
}

bool four_equal(const float* const* x, std::int64_t first, std::int64_t columns) {
    return equal(x[0] + first, x[1] + first, columns) && equal(x[0] + first, x[2] + first, columns) &&
           equal(x[0] + first, x[3] + first, columns);
}

}  // namespace

std::int64_t shared_columns(const float* const* x, int count, std::int64_t stride) {
    if (count % kFour != 0) return stride;
    std::int64_t shared = 0;
    for (int t = 0; t < count; t += kFour) {
        std::int64_t end = stride, first = (stride - 1) / kSharedColumns * kSharedColumns;
        while (first >= shared && four_equal(x + t, first, end - first)) {
            end = first;
            first -= kSharedColumns;
        }
        shared = std::max(shared, end);
        if (shared == stride) break;
    }
    return shared;
}

std::int64_t map_width(const float* queries, std::int64_t count, std::int64_t columns) {
    if (columns <= kEnough || count < 2 * kFour) return 0;
    const auto alike = [queries, columns](std::int64_t i, std::int64_t j) {
        return equal(queries + (i + 1) * columns - kEnough, queries + (j + 1) * columns - kEnough, kEnough);
    };
    if (!alike(0, 1)) return 0;
    // The first two that are not like the two before them: in a place without any detail all are alike.
    std::int64_t first = 2;
    while (first + 1 < count && alike(first, first - 2)) first += 2;
    std::int64_t width = 2;
    while (first + width < count && !alike(first, first + width)) width += 2;
    return first + width + 1 < count && alike(first + 1, first + width + 1) ? width : 0;
}

}  // namespace adc::search
