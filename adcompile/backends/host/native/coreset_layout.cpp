// Two points stand for a row x, with u = (x - centre) * scale:
//   * whole: u itself, as int8 codes times a step, no farther from u than `error`;
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

namespace adc::search {
namespace {

constexpr double kLongest = 1e15;     // of a square, in units of the scale: beyond, the sample misled
constexpr std::int64_t kBlock = 480;  // rows a thread takes at once, a multiple of kTogether
constexpr int kTogether = 12;         // rows whose heads are computed together

void reserve(AlignedBytes& bytes, std::int64_t size, bool zeros = false) {
    if (!bytes.allocate(static_cast<std::size_t>(size), zeros)) throw std::bad_alloc();
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

// The terms of a point; `more` is between what was encoded and the true point. Gives the point's length.
double set_terms(float* terms, const Quantised& q, std::int64_t count, double more) {
    const double inflate = 1 + (static_cast<double>(count) / 16 + 12) * kRounding;
    const float error = rounded_up(q.error * inflate + more + kUnderflow);
    terms[0] = q.step;
    terms[1] = static_cast<float>(q.square - static_cast<double>(error) * static_cast<double>(error));
    terms[2] = error;
    terms[3] = static_cast<float>(q.square);
    return std::sqrt(q.square);
}

}  // namespace

void CodedRows::allocate(std::int64_t rows, std::int64_t width) {
    columns = width;
    reserve(code_bytes, rows * width);
    reserve(term_bytes, rows * kRowTerms * 4);
    biases.resize(static_cast<std::size_t>(rows));
}

Point CodedRows::point(std::int64_t row, const Kernels& kernels, void* out) const {
    const void* query = as_query(codes(row), columns, kernels, out);
    const float* t = terms(row);
    Point p;
    p.probe = {query, -2 * t[0], 0, 0, 0, biases[static_cast<std::size_t>(row)]};
    p.rest = 0;
    p.square = static_cast<double>(t[3]);
    p.error = static_cast<double>(t[2]);
    return p;
}

struct CoresetLayout::Scratch {
    explicit Scratch(const CoresetLayout& layout)
        : u(static_cast<std::size_t>(layout.view.stride)),
          z(static_cast<std::size_t>(kTogether * layout.axes_.count)),
          queries(static_cast<std::size_t>(kTogether * layout.view.code_stride)) {}

    std::vector<float> u, z;
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
    reserve(centre_, view.stride * 4);
    choose_frame(view, view.row_data, kernels, team, centre_.as<float>(), axes_);
    whole.allocate(job.count, view.code_stride);
    head.allocate(job.count, axes_.count);
    view.row_codes = whole.codes(0);
    view.row_terms = whole.terms(0);
    if (measure(kernels, team)) return ADC_OK;
    // A row is far longer than those of the sample, or not finite: seldom, so time does not matter.
    if (!finite(job.rows, job.count * job.columns)) return ADC_NOT_FINITE;
    view.scale = unit_scale(view, view.row_data, 1, kernels);
    measure(kernels, team);
    return ADC_OK;
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
    for (std::int64_t start = first; start < last; start += kTogether) {
        const auto n = static_cast<int>(std::min<std::int64_t>(kTogether, last - start));
        for (int i = 0; i < n; ++i) longest = std::max(longest, encode(kernels, start + i, s.u.data()));
        const void* queries = as_query(whole.codes(start), n * whole.columns, kernels, s.queries.data());
        for (int i = 0; i < n; ++i) {
            const void* query = static_cast<const char*>(queries) + i * whole.columns * kernels.code_bytes;
            std::int32_t& bias = whole.biases[static_cast<std::size_t>(start + i)];
            bias = kernels.bias(query, whole.columns);
            probes[i] = {nullptr, axes_.shrink * whole.terms(start + i)[0], 0, 0, 0, bias};
        }
        kernels.values(axes_.shadow, queries, probes, n, 0, axes_.count / kLanes, s.z.data());
        for (int i = 0; i < n; ++i) longest = std::max(longest, encode_head(kernels, start + i, &s.z[static_cast<std::size_t>(i * axes_.count)]));
    }
    return longest;
}

double CoresetLayout::encode(const Kernels& kernels, std::int64_t row, float* u) {
    float square, largest;
    kernels.centre(view, view.row(row), u, &square, &largest);
    std::int8_t* codes = whole.codes(row);
    const Quantised q = kernels.quantise_row(u, view.stride, largest, codes);
    std::memset(codes + view.stride, 0, static_cast<std::size_t>(view.code_stride - view.stride));
    const double high = static_cast<double>(square) * (1 + (static_cast<double>(view.stride) / 32 + 10) * kRounding) + kUnderflow;
    const double length = set_terms(whole.terms(row), q, view.stride, 4.1 * kRounding * std::sqrt(high));
    return std::isfinite(square) ? std::max(length, std::sqrt(high)) : 1e300;
}

double CoresetLayout::encode_head(const Kernels& kernels, std::int64_t row, const float* z) {
    const Quantised q = kernels.quantise_row(z, axes_.count, -1, head.codes(row));
    std::int16_t wide[kCoresetAxes];
    head.biases[static_cast<std::size_t>(row)] = kernels.bias(as_query(head.codes(row), axes_.count, kernels, wide), axes_.count);
    const float* terms = whole.terms(row);
    const double error = static_cast<double>(terms[2]) + 5.5 * kRounding * std::sqrt(static_cast<double>(terms[3]));
    return set_terms(head.terms(row), q, axes_.count, error);
}

}  // namespace adc::search
