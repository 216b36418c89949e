#include "bank_alike.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

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

std::int64_t shared_columns(const float* const* x, int count, std::int64_t stride, std::int64_t guess) {
    if (count % kFour != 0) return stride;
    std::int64_t shared = 0;
    for (int t = 0; t < count; t += kFour) {
        if (guess < stride && four_equal(x + t, guess, stride - guess)) {  // memory is read in one direction
            shared = std::max(shared, guess);
            continue;
        }
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

void order_by_fours(const float* queries, std::int64_t count, std::int64_t columns, std::vector<std::int32_t>& order) {
    order.clear();
    if (columns <= kEnough || count < 2 * kFour || count > std::numeric_limits<std::int32_t>::max()) return;
    const auto alike = [queries, columns](std::int64_t i, std::int64_t j) {
        return equal(queries + (i + 1) * columns - kEnough, queries + (j + 1) * columns - kEnough, kEnough);
    };
    if (!alike(0, 1)) return;
    // The first two that are not like the two after them: in a place without any detail all are alike.
    std::int64_t first = 0;
    while (first + 2 < count && alike(first, first + 2)) first += 2;
    std::int64_t width = 2;
    while (first + width < count && !alike(first, first + width)) width += 2;
    if (first + width >= count || !alike(first + 1, first + width + 1)) return;
    order.reserve(static_cast<std::size_t>(count));
    std::int64_t row = 0;
    for (; row + 2 * width <= count; row += 2 * width) {
        for (std::int64_t i = row; i < row + width; i += 2)
            for (const std::int64_t place : {i, i + 1, i + width, i + width + 1}) order.push_back(static_cast<std::int32_t>(place));
    }
    for (; row < count; ++row) order.push_back(static_cast<std::int32_t>(row));
}

}  // namespace adc::search
