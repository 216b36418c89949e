// Search that compares every query with every row through int8 copies of all columns: for banks
// without structure, where nothing can be skipped, and for small ones, where it does not pay. Only
// rows that may be near are read in float32. The bounds are those of bank_bounds.cpp.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

constexpr std::int64_t kChunkBytes = 256 * 1024;
constexpr float kLowest = std::numeric_limits<float>::lowest();

}  // namespace

// Evaluates roughly the k rows with the smallest values: which ones is only a guess, but they give
// a limit. Then all rows of the chunk that may be near. `fresh`: none was offered before. False when
// the query is not finite.
bool Worker::first_chunk(int i, const float* values, int panels, int k, bool fresh) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    const Top& top = tops_[static_cast<std::size_t>(i)];
    const bool few = k > kLanes || bank_.rows < kLanes;
    const float least = few ? std::numeric_limits<float>::max() : kernels_.roughly_kth(values, panels, k);
    const auto consider = [&](int found) {
        if (fresh)
            offer(i, rows_, found);
        else
            evaluate(i, rows_, found);
    };
    consider(kernels_.collect(seen_.whole, values, 0, panels, kLowest, 0.0f, least, rows_));
    if (!std::isfinite(top.limit())) return finite(i);  // what is wrong may be in columns that were not compared
    bounds.update(top.limit());
    const Probe& probe = bounds.whole.probe;
    consider(kernels_.collect(seen_.whole, values, 0, panels, least, probe.slope, probe.limit, rows_));
    if (panels < bank_.panels) bounds.update(top.limit());
    return true;
}

// False when a query is not finite.
bool Worker::dense(int all, int k) {
    int list[kDenseBlock];
    bool fresh[kDenseBlock];
    int count = 0;
    for (int i = 0; i < all; ++i) {
        if (!encode(i)) return false;
        if (!queries_[static_cast<std::size_t>(i)].slow) list[count++] = i;
    }
    counts.dense_queries += static_cast<std::uint64_t>(count);
    for (int j = 0; j < count; ++j) {
        const int i = list[j];
        bounds_[static_cast<std::size_t>(i)].start(seen_, queries_[static_cast<std::size_t>(i)].whole);
        // The stored order is not random: without a limit the first panels would mislead.
        std::int32_t seeds[ADC_MAX_NEIGHBOURS];
        std::copy(seeds_, seeds_ + seed_count_, seeds);
        evaluate(i, seeds, seed_count_);
        fresh[j] = tops_[static_cast<std::size_t>(i)].rows(seeds) == 0;
    }
    // A chunk of the copy stays in the second-level cache while all queries pass over it.
    const std::int64_t fitting = kChunkBytes / (kLanes * seen_.stride);
    const std::int64_t chunk = std::min<std::int64_t>(kDensePanels, std::max<std::int64_t>(4, fitting / 2 * 2));
    const std::size_t code_size = static_cast<std::size_t>(seen_.stride * kernels_.code_bytes);
    for (std::int64_t first = 0; first < bank_.panels;) {
        const int panels = static_cast<int>(std::min(bank_.panels - first, first == 0 ? kDensePanels : chunk));
        for (int j = 0; j < count; j += kernels_.tile) {
            const int tile = std::min(count - j, kernels_.tile);
            for (int t = 0; t < tile; ++t) {
                std::memcpy(tile_ + static_cast<std::size_t>(t) * code_size, whole_codes(list[j + t]), code_size);
                probes_[static_cast<std::size_t>(t)] = bounds_[static_cast<std::size_t>(list[j + t])].whole.probe;
            }
            if (first == 0) {
                kernels_.values(seen_.whole, tile_, probes_.get(), tile, first, panels, values_);
                for (int t = 0; t < tile; ++t)
                    if (!first_chunk(list[j + t], values_ + static_cast<std::int64_t>(t) * panels * kLanes, panels, k, fresh[j + t])) return false;
                continue;
            }
            kernels_.sift(seen_.whole, tile_, probes_.get(), tile, first, panels, masks_);
            for (int t = 0; t < tile; ++t) {
                const int found = rows_in(masks_ + t * panels, first, panels, rows_);
                if (found == 0) continue;
                const int i = list[j + t];
                if (fresh[j + t])
                    offer(i, rows_, found);
                else
                    evaluate(i, rows_, found);
                bounds_[static_cast<std::size_t>(i)].update(tops_[static_cast<std::size_t>(i)].limit());
            }
        }
        first += panels;
    }
    return true;
}

}  // namespace adc::search
