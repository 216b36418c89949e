// Three points stand for a row x, with u = (x - centre) * scale:
//   * whole: u itself, as int8 codes times a step, no farther from u than `error`; the columns in which rows
//     differ most come first;
//   * half: these columns of the whole point alone. No two are farther apart than the wholes; often almost as far;
//   * head: with the axes A of coreset_axes.hpp, shrink * A'x' of the whole point x', as int8 codes.
//     Because |shrink * A'v| <= |v|, two heads are no farther apart than their rows but for the errors
//     of the whole points and of rounding the heads: bank_bounds.cpp, where this map is Φ.
//
// Rounding, with e = 2^-24 and as in bank_bounds.cpp: u has relative error 3e per element, the
// difference to the codes one more; lengths are sums over 16 or 32 lanes. A coordinate of the head is
// an integer, exact but for its conversion, times factors: at most 5e of itself.
#include "coreset_layout.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "coreset_frame.hpp"
#include "pages.hpp"

namespace adc::search {
namespace {

constexpr double kEndless = 1e300;    // a length that is not finite
constexpr double kLongest = 1e15;     // of a square, in units of the scale: beyond, the sample misled
constexpr std::int64_t kBlock = 480;  // rows a thread takes at once, a multiple of kTogether
constexpr double kEnough = 0.85;      // of the squared lengths, for the first halves to be compared
constexpr int kTogether = 12;         // rows whose heads are computed together
constexpr std::int64_t kAhead = 4;    // rows that start to be loaded before their turn: processors stop at the end of a page

void reserve(AlignedBytes& bytes, std::int64_t size, bool zeros = false) {
    if (!bytes.allocate(static_cast<std::size_t>(size), zeros)) throw std::bad_alloc();
}

// Starts to load so many bytes.
void prefetch(const void* from, std::int64_t count) {
#if defined(__GNUC__)
    for (std::int64_t i = 0; i < count; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i, 0, 2);
#else
    static_cast<void>(from), static_cast<void>(count);
#endif
}

bool finite(const float* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i])) return false;
    return true;
}

// Codes as Kernels take them from a query.
const void* as_query(const std::int8_t* codes, std::int64_t count, const Kernels& kernels, void* out) {
    if (kernels.code_bytes == 1) return codes;
    auto* wide = static_cast<std::int16_t*>(out);
    for (std::int64_t j = 0; j < count; ++j) wide[j] = codes[j];
    return out;
}

// The terms of a point; `more` is between what was encoded and the true point.
PointTerms terms_of(const Quantised& q, std::int64_t count, double more) {
    const double inflate = error_scale(count);
    const float error = rounded_up(q.error * inflate + more + kUnderflow);
    const double base = q.square - static_cast<double>(error) * static_cast<double>(error);
    return {q.step, static_cast<float>(base), error, static_cast<float>(q.square)};
}

double length_of(const PointTerms& t) { return std::sqrt(static_cast<double>(t.square)); }

Point point_of(const void* codes, const PointTerms& t, std::int32_t bias) {
    Point p;
    p.probe = {codes, -2 * t.step, 0, 0, 0, bias};
    p.rest = 0;
    p.square = static_cast<double>(t.square);
    p.error = static_cast<double>(t.error);
    return p;
}

}  // namespace

Point CoresetLayout::head(std::int64_t row, const Kernels& kernels, void* out) const {
    return point_of(as_query(head_codes(row), head_columns, kernels, out), terms(row).head, terms(row).head_bias);
}

void CoresetLayout::heads(const std::int32_t* rows, int count, const Kernels& kernels, void* codes, Probe* probes) const {
    auto* to = static_cast<unsigned char*>(codes);
    for (int i = 0; i < count; ++i, to += head_columns * kernels.code_bytes) {
        const std::int8_t* from = head_codes(rows[i]);
        if (as_query(from, head_columns, kernels, to) == from)
            for (std::int64_t c = 0; c < head_columns; c += 16) std::memcpy(to + c, from + c, 16);
        probes[i] = {nullptr, -2 * terms(rows[i]).head.step, 0, 0, 0, terms(rows[i]).head_bias};
    }
}

void CoresetLayout::reach(std::int64_t row, double limit, Probe& probe) const {
    Point head = point_of(nullptr, terms(row).head, 0);
    head.reach(view, limit);
    probe.slope = head.probe.slope;
    probe.limit = head.probe.limit;
}

Point CoresetLayout::whole(std::int64_t row, const Kernels& kernels, void* out) const {
    return point_of(as_query(codes(row), whole_columns, kernels, out), terms(row).whole, terms(row).whole_bias);
}

Point CoresetLayout::half(std::int64_t row, const Point& point) const {
    return point_of(point.probe.codes, terms(row).half, terms(row).half_bias);
}

void CoresetLayout::fetch(std::int64_t row) const {
    prefetch(&record(row), static_cast<std::int64_t>(sizeof(Record)) + whole_columns);
}

struct CoresetLayout::Scratch {
    explicit Scratch(const CoresetLayout& layout)
        : u(static_cast<std::size_t>(layout.view.stride)), halved(u.size()),
          z(static_cast<std::size_t>(kTogether * layout.frame_.axes.count)),
          codes(static_cast<std::size_t>(kTogether * layout.whole_columns)), queries(codes.size()) {}

    std::vector<float> u, halved, z;
    std::vector<std::int8_t> codes;
    std::vector<std::int16_t> queries;
    double longest = 0;
};

int CoresetLayout::prepare(const adc_coreset_job& job, const Kernels& kernels, Team& team) {
    view.rows = job.count;
    view.columns = job.columns;
    view.stride = (job.columns + 31) / 32 * 32;
    view.code_stride = (job.columns + 63) / 64 * 64;
    view.row_data = job.rows;
    if (view.stride != job.columns) {
        reserve(padded_, job.count * view.stride * 4, true);
        for (std::int64_t i = 0; i < job.count; ++i)
            std::memcpy(padded_.as<float>() + i * view.stride, job.rows + i * job.columns,
                        static_cast<std::size_t>(job.columns) * sizeof(float));
        view.row_data = padded_.as<float>();
    }
    choose_frame(view, view.row_data, kernels, team, frame_);
    head_columns = frame_.axes.count;
    whole_columns = view.code_stride;
    if (frame_.first_half >= kEnough) half_columns = (view.stride / 2 + 63) / 64 * 64;
    if (half_columns == whole_columns) half_columns = 0;
    reserve(records_, job.count * (static_cast<std::int64_t>(sizeof(Record)) + whole_columns));
    prefer_large_pages(records_.data(), records_.size());
    if (measure(kernels, team)) return ADC_OK;
    // A row is far longer than those of the sample, or not finite: seldom, so time does not matter.
    if (!finite(job.rows, job.count * job.columns)) return ADC_NOT_FINITE;
    view.scale = unit_scale(view, view.row_data, 1, kernels);
    measure(kernels, team);  // false also where all rows are alike
    return view.longest < kEndless ? ADC_OK : ADC_NOT_FINITE;
}

// False when a row is too long for its scale or not finite.
bool CoresetLayout::measure(const Kernels& kernels, Team& team) {
    std::vector<Scratch> scratch(static_cast<std::size_t>(team.size()), Scratch(*this));
    team.run(view.rows, kBlock, [&](int member, std::int64_t first, std::int64_t last) {
        Scratch& s = scratch[static_cast<std::size_t>(member)];
        s.longest = std::max(s.longest, measure(kernels, first, last, s));
    });
    double most = 0;
    for (const Scratch& s : scratch) most = std::max(most, s.longest);
    view.longest = most * (1 + 1e-6) + kUnderflow;
    return most * most <= kLongest && most * most > 1 / kLongest;
}

// Everything about some rows; returns the length of the longest of their points.
double CoresetLayout::measure(const Kernels& kernels, std::int64_t first, std::int64_t last, Scratch& s) {
    Probe probes[kTogether];
    double longest = 0;
    const CoresetAxes& axes = frame_.axes;
    for (std::int64_t start = first; start < last; start += kTogether) {
        const auto n = static_cast<int>(std::min<std::int64_t>(kTogether, last - start));
        for (int i = 0; i < n; ++i) longest = std::max(longest, encode(kernels, start + i, &s.codes[static_cast<std::size_t>(i * whole_columns)], s));
        const void* queries = as_query(s.codes.data(), n * whole_columns, kernels, s.queries.data());
        for (int i = 0; i < n; ++i) {
            const void* query = static_cast<const char*>(queries) + i * whole_columns * kernels.code_bytes;
            RowTerms& t = record(start + i).terms;
            t.whole_bias = kernels.bias(query, whole_columns);
            t.half_bias = kernels.bias(query, half_columns);
            probes[i] = {nullptr, axes.shrink * t.whole.step, 0, 0, 0, t.whole_bias};
        }
        kernels.values(axes.shadow, queries, probes, n, 0, axes.count / kLanes, s.z.data());
        for (int i = 0; i < n; ++i) longest = std::max(longest, encode_head(kernels, start + i, &s.z[static_cast<std::size_t>(i * axes.count)]));
    }
    return longest;
}

double CoresetLayout::encode(const Kernels& kernels, std::int64_t row, std::int8_t* to, Scratch& s) {
    float square, largest;
    if (row + kAhead < view.rows) prefetch(view.row(row + kAhead), view.stride * 4);
    kernels.centre(view, view.row(row), s.u.data(), &square, &largest);
    kernels.halve(s.u.data(), frame_.order.data(), view.stride, s.halved.data());
    const std::int64_t half = view.stride / 2;
    const Quantised one = kernels.quantise_row(s.halved.data(), half, largest, to);
    const Quantised two = kernels.quantise_row(s.halved.data() + half, half, largest, to + half);
    std::memset(to + view.stride, 0, static_cast<std::size_t>(whole_columns - view.stride));
    std::memcpy(&record(row) + 1, to, static_cast<std::size_t>(whole_columns));
    Quantised all = one;
    all.square += two.square;
    all.error = std::sqrt(one.error * one.error + two.error * two.error);
    const double high = static_cast<double>(square) * (1 + (static_cast<double>(view.stride) / 32 + 10) * kRounding) + kUnderflow;
    const double rounding = kErrorPerLength * std::sqrt(high);
    RowTerms& t = record(row).terms;
    t.half = terms_of(one, view.stride, rounding);
    t.whole = terms_of(all, view.stride, rounding);
    return std::isfinite(square) ? std::max(std::sqrt(all.square), std::sqrt(high)) : kEndless;
}

double CoresetLayout::encode_head(const Kernels& kernels, std::int64_t row, const float* z) {
    std::int8_t* to = record(row).codes;
    const Quantised q = kernels.quantise_row(z, head_columns, -1, to);
    std::int16_t wide[kCoresetAxes];
    RowTerms& t = record(row).terms;
    t.head_bias = kernels.bias(as_query(to, head_columns, kernels, wide), head_columns);
    t.head = terms_of(q, head_columns, static_cast<double>(t.whole.error) + 5.5 * kRounding * length_of(t.whole));
    return std::sqrt(q.square);
}

}  // namespace adc::search
