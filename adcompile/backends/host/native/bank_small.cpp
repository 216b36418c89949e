// Search of a small bank along its axes. It is in cache as a whole, so every step takes a tile of
// queries at once: int8 codes, their coordinates along an int8 copy of the axes, every row's lower
// bound by these. The nearest by that bound are evaluated, which gives the limit for all the others.
// The bounds are those of bank_bounds.cpp.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

constexpr int kAtOnce = 4;  // rows that are evaluated without putting them in order first

}  // namespace

// Coordinates of the tile's queries, from their codes of all columns.
void Worker::project_codes(const int* list, int tile) {
    const std::size_t size = static_cast<std::size_t>(bank_.stride * kernels_.code_bytes);
    for (int t = 0; t < tile; ++t) {
        const Point& whole = queries_[static_cast<std::size_t>(list[t])].whole;
        std::memcpy(tile_ + static_cast<std::size_t>(t) * size, whole_codes(list[t]), size);
        probes_[static_cast<std::size_t>(t)] = {nullptr, -0.5f * whole.probe.factor, 0, 0, 0, whole.probe.bias};
    }
    kernels_.values(bank_.axes_copy->shadow, tile_, probes_.get(), tile, 0, 2 * bank_.axis_panels, values_);
    const int axes = bank_.axis_count();
    for (int t = 0; t < tile; ++t)
        for (int a = 0; a < axes; ++a) z_[t * axes + a] = values_[2 * t * axes + a] + values_[(2 * t + 1) * axes + a];
}

// Rows from their bounds by the axes.
void Worker::choose(int i, const float* values, int k) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    const int panels = static_cast<int>(bank_.panels);
    constexpr float lowest = std::numeric_limits<float>::lowest();
    const float least = kernels_.roughly_kth(values, panels, k);
    offer(i, rows_, kernels_.collect(bank_.head, values, 0, panels, lowest, 0.0f, least, rows_));
    bounds.update(tops_[static_cast<std::size_t>(i)].limit());
    const Probe& probe = bounds.head.probe;
    const int found = kernels_.collect(bank_.head, values, 0, panels, least, probe.slope, probe.limit, rows_);
    counts.after_first += static_cast<std::uint64_t>(found);
    const int kept = check(i, rows_, found);
    if (kept <= kAtOnce)
        offer(i, rows_, kept);
    else
        refine(i, kept);
}

// False when a query is not finite.
bool Worker::small(int all, int k) {
    int list[kBlock];
    int count = 0;
    for (int i = 0; i < all; ++i) {
        if (!encode(i)) return false;
        if (!queries_[static_cast<std::size_t>(i)].slow) list[count++] = i;
    }
    const std::int64_t axes = bank_.axis_count();
    const std::size_t size = static_cast<std::size_t>(axes * kernels_.code_bytes);
    const int most = std::min(kProjected, kernels_.tile);
    for (int first = 0; first < count; first += most) {
        const int tile = std::min(count - first, most);
        project_codes(list + first, tile);
        for (int t = 0; t < tile; ++t) {
            Bounds& bounds = bounds_[static_cast<std::size_t>(list[first + t])];
            unsigned char* codes = tile_ + static_cast<std::size_t>(t) * size;
            const float* z = z_ + t * axes;
            const Quantised q = kernels_.quantise(z, axes, -1.0f, codes);
            bounds.start(bank_, queries_[static_cast<std::size_t>(list[first + t])].whole, z, codes, q, kernels_.bias(codes, axes));
            probes_[static_cast<std::size_t>(t)] = bounds.head.probe;
        }
        kernels_.values(bank_.head, tile_, probes_.get(), tile, 0, static_cast<int>(bank_.panels), values_);
        for (int t = 0; t < tile; ++t) choose(list[first + t], values_ + t * bank_.panels * kLanes, k);
    }
    return true;
}

}  // namespace adc::search
