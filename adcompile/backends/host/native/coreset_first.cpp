#include "coreset_first.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace adc::search {
namespace {

constexpr std::int64_t kBlock = 1024;  // rows summed one after another; then the sums are

std::vector<double> mean_of(const BankView& view, Team& team) {
    const auto wide = static_cast<std::size_t>(view.stride);
    std::vector<double> sums(static_cast<std::size_t>((view.rows + kBlock - 1) / kBlock) * wide);
    team.run(view.rows, kBlock, [&](int, std::int64_t first, std::int64_t last) {
        double* sum = &sums[static_cast<std::size_t>(first / kBlock) * wide];
        for (std::int64_t i = first; i < last; ++i) {
            const float* row = view.row(i);
            for (std::size_t j = 0; j < wide; ++j) sum[j] += static_cast<double>(row[j]);
        }
    });
    std::vector<double> mean(wide);
    for (std::size_t block = 0; block < sums.size(); block += wide)
        for (std::size_t j = 0; j < wide; ++j) mean[j] += sums[block + j];
    for (double& value : mean) value /= static_cast<double>(view.rows);
    return mean;
}

// 16 running sums of rounded squares, then halves onto halves, as Kernels::precise does for floats.
double precise(const float* row, const std::vector<double>& mean) {
    double sum[kLanes] = {};
    for (std::size_t j = 0; j < mean.size(); ++j) {
        const double gap = static_cast<double>(row[j]) - mean[j];
        volatile double square = gap * gap;  // not to be fused with the sum
        sum[j % kLanes] += square;
    }
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
    return sum[0];
}

}  // namespace

std::int64_t farthest_from_mean(const CoresetLayout& layout, Team& team) {
    const BankView& view = layout.view;
    const std::vector<double> mean = mean_of(view, team);
    // A row's distance differs from that of its int8 point to the centre by at most the point's error and
    // what the mean is away from the centre.
    double off = 0;
    for (std::int64_t j = 0; j < view.stride; ++j) {
        const double gap = (mean[static_cast<std::size_t>(j)] - static_cast<double>(view.centre[j])) * static_cast<double>(view.scale);
        off += gap * gap;
    }
    off = std::sqrt(off);
    const auto length = [&](std::int64_t row) { return std::sqrt(static_cast<double>(layout.terms(row).whole.square)); };
    double least = 0;  // of the farthest row
    for (std::int64_t i = 0; i < view.rows; ++i)
        least = std::max(least, length(i) - static_cast<double>(layout.terms(i).whole.error) - off);
    least -= 1e-6 * (view.longest + off);
    std::int64_t found = 0;
    double most = -1;
    for (std::int64_t i = 0; i < view.rows; ++i) {
        if (length(i) + static_cast<double>(layout.terms(i).whole.error) + off < least) continue;
        const double squared = precise(view.row(i), mean);
        if (squared <= most) continue;
        most = squared;
        found = i;
    }
    return found;
}

}  // namespace adc::search
