#include "bank_worker.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "bank_half.hpp"

namespace adc::search {
namespace {

constexpr std::int64_t kSeeded = 1 << 20;  // rows x columns from which on seeds pay

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Worker::Worker(const BankView& bank, const Kernels& kernels)
    : bank_(bank), seen_(bank.half == nullptr ? bank : bank.half->view), kernels_(kernels),
      margin_((static_cast<double>(bank.stride) / 32 + 10) * (1.01 / 16777216.0)) {}

bool Worker::allocate() {
    const auto n = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const std::size_t stride = n(bank_.stride), axes = n(bank_.axis_count()), code = n(kernels_.code_bytes);
    const std::size_t tile = n(kernels_.tile), most = n(block());
    const bool pad = bank_.stride != bank_.columns;
    const std::size_t values = std::max<std::size_t>(std::max(kListedPanels, kDirectTile * kDirectPanels), tile * kDensePanels) * kLanes;
    const std::size_t sizes[] = {
        padded(kProjected * stride * sizeof(float)),
        padded(kProjected * axes * sizeof(float)),
        pad ? padded(most * stride * sizeof(float)) : 0,
        padded(most * n(bank_.code_stride) * code),
        padded(most * axes * code),
        padded(std::max<std::size_t>(most * axes, std::max<std::size_t>(tile, kNearTile) * stride) * code),
        padded(axes == 0 ? 0 : most * n(bank_.groups + kLanes) * sizeof(float)),
        padded(values * sizeof(float)),
        padded(std::max<std::size_t>(most * kGroupPanels, tile * kDensePanels) * sizeof(std::uint16_t)),
        padded(kListed * sizeof(std::int32_t)),
        padded(kListed * sizeof(float)),
        padded(axes == 0 ? 0 : kListedQueries * kGroupPanels * kLanes * sizeof(std::int32_t)),
        padded(n(bank_.code_stride) * sizeof(float)),
        padded(n(bank_.stride) * sizeof(float)),
    };
    std::size_t total = 0;
    for (std::size_t size : sizes) total += size;
    tops_.reset(new (std::nothrow) Top[most]);
    bounds_.reset(new (std::nothrow) Bounds[most]);
    queries_.reset(new (std::nothrow) Query[most]);
    probes_.reset(new (std::nothrow) Probe[most]);
    near_.reset(new (std::nothrow) NearTile());
    if (!near_ || !tops_ || !bounds_ || !queries_ || !probes_ || !memory_.allocate(total)) return false;
    unsigned char* next = memory_.data();
    const auto take = [&next, &sizes](int i) {
        unsigned char* start = next;
        next += sizes[i];
        return static_cast<void*>(start);
    };
    u_ = static_cast<float*>(take(0));
    z_ = static_cast<float*>(take(1));
    padded_ = static_cast<float*>(take(2));
    codes_ = static_cast<unsigned char*>(take(3));
    head_codes_ = static_cast<unsigned char*>(take(4));
    tile_ = static_cast<unsigned char*>(take(5));
    group_bounds_ = static_cast<float*>(take(6));
    values_ = static_cast<float*>(take(7));
    masks_ = static_cast<std::uint16_t*>(take(8));
    rows_ = static_cast<std::int32_t*>(take(9));
    row_values_ = static_cast<float*>(take(10));
    listed_ = static_cast<std::int32_t*>(take(11));
    shift_ = static_cast<float*>(take(12));
    picked_ = static_cast<float*>(take(13));
    set_shift();
    set_near_limits();
    return true;
}

// Pads a query where the bank is padded.
void Worker::begin(int i, const float* x) {
    Query& query = queries_[static_cast<std::size_t>(i)];
    query.x = x;
    query.slow = false;
    if (bank_.stride != bank_.columns) {
        float* copy = padded_ + i * bank_.stride;  // zero beyond the columns since allocate()
        std::memcpy(copy, x, static_cast<std::size_t>(bank_.columns) * sizeof(float));
        query.x = copy;
    }
}

// An empty list of the nearest rows.
void Worker::start_list(int i, int k) {
    tops_[static_cast<std::size_t>(i)].start(&bank_, &kernels_, queries_[static_cast<std::size_t>(i)].x, k, margin_);
}

// The columns of x that are compared as int8.
const float* Worker::compared(const float* x) {
    if (seen_.picks == nullptr) return x;
    for (std::int64_t j = 0; j < seen_.columns; ++j) picked_[j] = x[j / kLanes * 2 * kLanes + seen_.picks[j]];
    return picked_;
}

// The point of all columns, with a step of its own, and u. False when the query is not finite.
bool Worker::encode(int i, float* u, float* square) {
    Query& query = queries_[static_cast<std::size_t>(i)];
    float largest;
    kernels_.centre(seen_, compared(query.x), u, square, &largest);
    query.slow = !(*square <= kLongest);  // also for NaN
    if (query.slow) {
        query.whole = Point();
        return finite(i);
    }
    unsigned char* codes = whole_codes(i);
    const Quantised q = kernels_.quantise(u, seen_.stride, largest, codes);
    query.whole = whole_point(seen_, codes, q, kernels_.bias(codes, seen_.stride), 0);
    return true;
}

void Worker::set_shift() {
    double square = 0;
    for (std::int64_t i = 0; i < seen_.code_stride; ++i) {
        const float centre = i < seen_.stride ? seen_.centre[i] : 0.0f;
        shift_[i] = -centre * (bank_.scale / bank_.query_step);
        square += static_cast<double>(centre) * static_cast<double>(centre);
    }
    shift_error_ = 2.1 / 16777216.0 * static_cast<double>(bank_.scale) * std::sqrt(square);
}

// The same in one pass with the bank's step, where it suits; no u.
bool Worker::encode(int i) {
    Quantised q;
    unsigned char* codes = whole_codes(i);
    float square;
    Query& query = queries_[static_cast<std::size_t>(i)];
    if (!kernels_.encode(seen_, shift_, query.x, seen_.query_step, codes, &q)) return encode(i, u_, &square);
    query.whole = whole_point(seen_, codes, q, q.bias, shift_error_);
    return true;
}

// Offers rows that were not offered before; rows of the last panel's padding may only come last.
void Worker::offer(int i, const std::int32_t* rows, int count) {
    Top& top = tops_[static_cast<std::size_t>(i)];
    float distances[kRanked];
    while (count > 0 && rows[count - 1] >= bank_.rows) --count;  // padding of the last panel
    counts.exact += static_cast<std::uint64_t>(count);
    for (int first = 0; first < count; first += kRanked) {
        const int taken = std::min(count - first, kRanked);
        kernels_.distances(bank_, queries_[static_cast<std::size_t>(i)].x, rows + first, taken, distances);
        top.offer(rows + first, distances, taken);
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

// Lists the rows of these masks.
int Worker::rows_in(const std::uint16_t* masks, std::int64_t first_panel, int panels, std::int32_t* rows) {
    int found = 0;
    for (int panel = 0; panel < panels; ++panel) {
        const auto row = static_cast<std::int32_t>((first_panel + panel) * kLanes);
        for (unsigned mask = masks[panel]; mask != 0; mask &= mask - 1) rows[found++] = row + __builtin_ctz(mask);
    }
    return found;
}

bool Worker::finite(int i) const {
    const float* x = queries_[static_cast<std::size_t>(i)].x;
    return std::all_of(x, x + bank_.columns, [](float value) { return std::isfinite(value); });
}

void Worker::exhaustive(int i) {
    std::int32_t rows[kLanes];
    for (std::int64_t first = 0; first < bank_.rows; first += kLanes) {
        const int count = static_cast<int>(std::min<std::int64_t>(kLanes, bank_.rows - first));
        for (int j = 0; j < count; ++j) rows[j] = static_cast<std::int32_t>(first) + j;
        offer(i, rows, count);
    }
}

bool Worker::run(const Batch& batch, std::int64_t first, int count) {
    const int k = batch.k;
    counts.pairs += static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(bank_.rows);
    for (int i = 0; i < count; ++i) begin(i, batch.queries + batch.place(first + i) * bank_.columns);
    if (likes_fours(k)) return nearest(batch, first, count);
    for (int i = 0; i < count; ++i) start_list(i, k);
    const bool finite = directly(k)             ? direct(count, k)
                        : along_copy(k)         ? small(count, k)
                        : bank_.axis_panels > 0 ? scan(count, k)
                                                : dense(count, k);
    if (!finite) return false;
    for (int i = 0; i < count; ++i) {
        if (!queries_[static_cast<std::size_t>(i)].slow) continue;
        ++counts.slow_queries;
        exhaustive(i);
    }
    seed_count_ = bank_.rows * bank_.stride > kSeeded ? tops_[static_cast<std::size_t>(count - 1)].rows(seeds_) : 0;
    for (int i = 0; i < count; ++i) {
        const std::int64_t at = batch.place(first + i) * k;
        tops_[static_cast<std::size_t>(i)].finish(batch.indices + at, batch.squared + at);
    }
    return true;
}

}  // namespace adc::search
