// Why no neighbour is lost
// ------------------------
// Let u(v) = scale · (v − centre), with the bank's float32 centre and its power-of-two scale, in
// exact arithmetic; distances between u's are `scale` times distances between vectors.
//
// A shadow puts a point Φ(u) in place of u, with |Φ(a) − Φ(b)| ≤ |a − b|:
//   * `whole`: Φ(u) = u, or u in some of its columns only (bank_half.cpp);
//   * `head`: Φ(u) = (z, ρ) with z = Pᵀu for orthonormal columns P and ρ = the length of u − Pz.
//     Indeed |a − b|² = |z(a) − z(b)|² + |rest(a) − rest(b)|², and the rests differ by at least the
//     difference of their lengths.
// Of these points approximations are kept: int8 codes times a step (and a float32 for ρ). Let x', y'
// be those of a query and a row, |Φ(x) − x'| ≤ e_x and |Φ(y) − y'| ≤ e_y. A row at distance t has
// |x' − y'| ≤ t + e_x + e_y, so with g = t + e_x it cannot be nearer than t when
//     |x'|² + |y'|² − 2 x'·y' > (g + e_y)²,   that is, when
//     (|y'|² − e_y²) − 2 x'·y' − 2 g e_y > g² − |x'|².
// The left side is `base` + products + slope · error of Probe.
//
// A box holds the first 8 coordinates and the rest beyond them of 256 rows. The distance from the
// query's (z, ρ) to the box is a lower bound for all of its rows, by the same argument.
//
// Where the coordinates are those of a query's int8 point x' (bank_axes.cpp), Φ(x') is approximated;
// as |Φ(x) - Φ(x')| <= |x - x'|, the error of x' adds to that of the approximation.
//
// Rounding (e = 2^-24). The bank's side was computed in double precision and rounded once, outwards
// where it matters. On the query's side
//   * u is computed with relative error at most 3e per element: difference, factor, product;
//     Kernels::encode computes x · factor - centre · factor instead, of which each product is rounded:
//     as |x| <= |x - centre| + |centre|, that is at most 4e |u| + 2e scale |centre|;
//   * the difference between u and the codes is exact but for one rounding of the code times the
//     step; its length is a sum over 16 lanes, relative error (columns/16 + 12)·e;
//   * a coordinate is a sum of `stride` products in blocks: its error is at most n·e·|u| with
//     n = kProjectBlock + blocks + 4, the float32 rounding of the axis and of u included; over r
//     axes the error vector is no longer than E_r = √r · n · e · |u|;
//   * |u|² is a sum over 32 lanes, relative error (stride/32 + 10)·e;
//   * ρ² = |u|² − |z|² cancels, so an interval for ρ is used: |z|² is off by at most 2 E_r|u| + E_r².
//     Its middle is the coordinate, half its width goes into e_x, as E_r does.
// The sum of products of codes is exact in int32 (columns · 128 · 255 < 2^31). The test is computed
// in float32 with at most 10 roundings, of terms whose sizes add up to (|x'| + Y)² + 2 g e_y at most,
// Y the longest |y'|. All constants are rounded up generously (factors of 1.01 and more against
// second-order terms), and a float32 limit is rounded upwards. An absolute 1e-30 covers underflow:
// lengths are at most 1 by choice of scale.
//
// Kernels::encode_tile and not_listed compute |x'|², e_x, g and the limit in float32. Their own roundings
// (at most 4e of g² + |x'|² + Y² and of e_x) are less than what they add: 1e-6 of g² and of e_x, and
// 60e instead of 28e of the terms; 1e-18 stands for squares too small for float32.
#include "bank_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bank_axes.hpp"

namespace adc::search {
namespace {

constexpr double kNoLimit = 1e15;  // of u: beyond it float32 is no good for the bounds

double squared_length(const float* z, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += static_cast<double>(z[i]) * static_cast<double>(z[i]);
    return sum;
}

}  // namespace

void Bounds::start(const BankView& b, const Point& point) {
    bank_ = &b;
    axes_ = false;
    whole = point;
    box_limit = std::numeric_limits<float>::infinity();
    update(std::numeric_limits<double>::infinity());
}

void Bounds::start(const BankView& b, const Point& point, const float* z, float square, const void* codes,
                   const Quantised& q, std::int32_t bias) {
    const int axes = b.axis_count();
    const double square_error = (static_cast<double>(b.stride) / 32 + 10) * kRounding;
    const double high = static_cast<double>(square) * (1 + square_error) + kUnderflow;
    const double low = static_cast<double>(square) * (1 - square_error) - kUnderflow;
    const double length = std::sqrt(high);
    const double chain = kProjectBlock + std::ceil(static_cast<double>(b.stride) / kProjectBlock) + 4;
    struct Rest { double low, high; };
    const auto error = [&](int r) { return std::sqrt(static_cast<double>(r)) * chain * kRounding * length; };
    const auto rest_beyond = [&](double z_square, int r) -> Rest {
        const double slack = 2.02 * error(r) * length;
        return {std::sqrt(std::max(0.0, low - z_square - slack)), std::sqrt(std::max(0.0, high - z_square + slack))};
    };
    const double box_square = squared_length(z, kBoxAxes);
    const Rest box_rest = rest_beyond(box_square, kBoxAxes);
    for (int axis = 0; axis < kBoxAxes; ++axis) box.low[axis] = box.high[axis] = z[axis];
    box.low[kBoxAxes] = static_cast<float>(box_rest.low * (1 - 2.4e-7));
    box.high[kBoxAxes] = rounded_up(box_rest.high);
    box_error_ = error(kBoxAxes);

    const Rest rest = rest_beyond(box_square + squared_length(z + kBoxAxes, axes - kBoxAxes), axes);
    start(b, point);
    start_head(rest.low, rest.high, 2.1 * kRounding * length + error(axes), codes, q, bias);
}

void Bounds::start(const BankView& b, const Point& point, const float* z, const void* codes, const Quantised& q,
                   std::int32_t bias) {
    // Of the point x' itself: |x'|² = |Pᵀx'|² + ρ², and Pᵀx' is z but for an error of at most `off`.
    const double off = b.axes_copy->error * point.length();
    const double along = std::sqrt(squared_length(z, b.axis_count()));
    const double least = std::max(0.0, along - off), most = along + off;
    start(b, point);
    start_head(std::sqrt(std::max(0.0, point.square * (1 - 1e-9) - most * most)),
               std::sqrt(std::max(0.0, point.square * (1 + 1e-9) - least * least)) + kUnderflow, off + point.error, codes, q, bias);
}

void Bounds::start_head(double low, double high, double error, const void* codes, const Quantised& q,
                        std::int32_t bias) {
    const float middle = static_cast<float>((low + high) / 2);
    const double half = (high - low) / 2 + 2 * kRounding * high;
    head = point_of(codes, q, bias, bank_->axis_count(), error + half + 2.1 * kRounding * std::sqrt(q.square));
    head.rest = static_cast<double>(middle);
    head.probe.rest = -2 * middle;
    head.square += head.rest * head.rest;
    axes_ = true;
    update(std::numeric_limits<double>::infinity());
}

void Bounds::update(double limit) {
    limit_ = limit;
    const double scale = static_cast<double>(bank_->scale);
    const double square = limit * scale * scale;
    if (!(square <= kNoLimit)) {
        const float infinity = std::numeric_limits<float>::infinity();
        whole.probe.slope = head.probe.slope = 0;
        whole.probe.limit = head.probe.limit = box_limit = infinity;
        return;
    }
    whole.reach(*bank_, square);
    if (!axes_) return;
    head.reach(*bank_, square);
    const double reach = std::sqrt(square) + box_error_;
    box_limit = rounded_up(reach * reach * (1 + 1e-5) + kUnderflow);
}

}  // namespace adc::search
