#include "bank_worker.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

namespace adc::search {
namespace {

constexpr int kProbes = 1;  // queries tried in the tree when it did not help the block before
// What a query costs in the tree before any row is looked at, in units of Kernels::dense_cost:
// projection on the axes, per column, and boxes.
constexpr float kProjectCost = 6;
constexpr float kTreeCost = 4000;
constexpr float kSeedCost = 20000;  // of a dense scan from which on a first limit is worth having

// Rows listed at once, by the tree or the dense scan, and what a compressed store may overwrite.
constexpr std::size_t kScanned = kLanes * (kListed > kDensePanels ? kListed : kDensePanels) + kLanes;

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool all_finite(const float* x, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        if (!std::isfinite(x[i])) return false;
    return true;
}

}  // namespace

Worker::Worker(const BankView& bank, const Kernels& kernels)
    : bank_(bank), kernels_(kernels),
      margin_((static_cast<double>(bank.stride) / 32 + 10) * (1.01 / 16777216.0)),
      dense_cost_(static_cast<float>(bank.panels) *
                  (static_cast<float>(bank.stride) / 4 * kernels.dense_cost + 16)),
      tail_cost_(static_cast<float>(bank.tail) / 4 * kernels.dense_cost + 16),
      exact_cost_(60 + static_cast<float>(bank.stride) / 4) {}

bool Worker::allocate() {
    const auto stride = static_cast<std::size_t>(bank_.stride);
    const bool pad = bank_.stride != bank_.columns;
    const std::size_t sizes[] = {
        padded(kBlock * stride * sizeof(float)),
        pad ? padded(kBlock * stride * sizeof(float)) : 0,
        padded(static_cast<std::size_t>(kBlock * 16 * bank_.axis_panels) * sizeof(float)),
        padded(static_cast<std::size_t>(kBlock * kernels_.code_bytes) * stride),
        padded(static_cast<std::size_t>(kernels_.dense_queries) * kDensePanels * kLanes * sizeof(float)),
        padded(static_cast<std::size_t>(bank_.supers) * kBlock * kLanes * sizeof(float)),
        padded(kListed * sizeof(std::int32_t)),
        padded(kScanned * sizeof(std::int32_t)),
        padded(kScanned * sizeof(float)),
        padded(kScanned * sizeof(float)),
        padded(static_cast<std::size_t>(kBlock * kernels_.code_bytes * bank_.tail)),
    };
    std::size_t total = 0;
    for (std::size_t size : sizes) total += size;
    tops_.reset(new (std::nothrow) Top[kBlock]);
    query_bounds_.reset(new (std::nothrow) Bounds[kBlock]);
    if (!tops_ || !query_bounds_ || !memory_.allocate(total)) return false;
    unsigned char* next = memory_.data();
    const auto take = [&next, &sizes](int i) {
        unsigned char* start = next;
        next += sizes[i];
        return static_cast<void*>(start);
    };
    u_ = static_cast<float*>(take(0));
    padded_ = static_cast<float*>(take(1));
    z_ = static_cast<float*>(take(2));
    codes_ = static_cast<unsigned char*>(take(3));
    values_ = static_cast<float*>(take(4));
    group_bounds_ = static_cast<float*>(take(5));
    panels_ = static_cast<std::int32_t*>(take(6));
    rows_ = static_cast<std::int32_t*>(take(7));
    row_bounds_ = static_cast<float*>(take(8));
    bounds_ = static_cast<float*>(take(9));
    tail_codes_ = static_cast<unsigned char*>(take(10));
    return true;
}

bool Worker::prepare(const float* queries, int count, int k) {
    for (int i = 0; i < count; ++i) {
        const float* x = queries + i * bank_.columns;
        Prepared& p = prepared_[i];
        kernels_.centre(bank_, x, u_ + i * bank_.stride, &p.square, &p.largest);
        // Also true for NaN. Twice the longest row's square times 2^20 is far from overflow.
        p.slow = !(p.square <= 1e12f);
        if (p.slow && !all_finite(x, bank_.columns)) return false;
        p.x = x;
        if (bank_.stride != bank_.columns) {
            float* copy = padded_ + i * bank_.stride;  // zero beyond the columns since allocate()
            std::memcpy(copy, x, static_cast<std::size_t>(bank_.columns) * sizeof(float));
            p.x = copy;
        }
        tops_[static_cast<std::size_t>(i)].start(&bank_, &kernels_, p.x, k, margin_);
    }
    return true;
}

// Offers rows that were not offered before; rows of the last panel's padding may only come last.
void Worker::offer(int i, const std::int32_t* rows, int count) {
    constexpr int kBatch = 24;
    Top& top = tops_[static_cast<std::size_t>(i)];
    float distances[kBatch];
    while (count > 0 && rows[count - 1] >= bank_.rows) --count;  // padding of the last panel
    counts.exact += static_cast<std::uint64_t>(count);
    for (int first = 0; first < count; first += kBatch) {
        const int taken = std::min(count - first, kBatch);
        kernels_.distances(bank_, prepared_[i].x, rows + first, taken, distances);
        for (int j = 0; j < taken; ++j) top.offer(rows[first + j], distances[j]);
    }
}

// Offers those of the rows that exist and are not among the nearest already; overwrites `rows`.
void Worker::evaluate(int i, std::int32_t* rows, int count) {
    const Top& top = tops_[static_cast<std::size_t>(i)];
    int fresh = 0;
    for (int j = 0; j < count; ++j)
        if (rows[j] < bank_.rows && !top.contains(rows[j])) rows[fresh++] = rows[j];
    offer(i, rows, fresh);
}

void Worker::exhaustive(int i) {
    std::int32_t rows[kLanes];
    for (std::int64_t first = 0; first < bank_.rows; first += kLanes) {
        const int count = static_cast<int>(std::min<std::int64_t>(kLanes, bank_.rows - first));
        for (int j = 0; j < count; ++j) rows[j] = static_cast<std::int32_t>(first) + j;
        offer(i, rows, count);
    }
}

// As tree(), but tries a few queries first where the last block had to be scanned densely.
int Worker::search_tree(int* list, int count) {
    const auto project = [this](int first, int n) {
        kernels_.project(bank_, u_ + first * bank_.stride, n,
                         z_ + static_cast<std::int64_t>(first) * 16 * bank_.axis_panels);
    };
    const int probes = std::min(count, mostly_dense_ ? kProbes : 0);
    for (int j = 0; j < probes; ++j) project(list[j], 1);
    const int failed = tree(list, probes);
    if (probes > 0 && failed == probes) return count;
    if (count > probes) project(list[probes], list[count - 1] - list[probes] + 1);
    const int more = tree(list + probes, count - probes);
    std::copy(list + probes, list + probes + more, list + failed);
    mostly_dense_ = (failed + more) * 2 > count;
    return failed + more;
}

bool Worker::run(const float* queries, int count, int k, std::int64_t* indices, double* squared) {
    if (!prepare(queries, count, k)) return false;
    counts.pairs += static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(bank_.rows);
    int todo[kBlock];
    int open = 0;
    for (int i = 0; i < count; ++i) {
        if (!prepared_[i].slow) {
            todo[open++] = i;
            continue;
        }
        ++counts.slow_queries;
        exhaustive(i);
    }
    const bool use_tree = dense_cost_ > kTreeCost + kProjectCost * static_cast<float>(bank_.stride);
    const int left = use_tree ? search_tree(todo, open) : open;
    if (left > 0) dense(todo, left, k);
    seed_count_ = dense_cost_ > kSeedCost ? tops_[static_cast<std::size_t>(count - 1)].rows(seeds_) : 0;
    for (int i = 0; i < count; ++i)
        tops_[static_cast<std::size_t>(i)].finish(indices + static_cast<std::int64_t>(i) * k,
                                                  squared + static_cast<std::int64_t>(i) * k);
    return true;
}

}  // namespace adc::search
