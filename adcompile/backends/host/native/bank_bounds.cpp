// Why no neighbour is lost
// ------------------------
// Let u(v) = scale · (v − centre), with the bank's float32 centre and its power-of-two scale, in
// exact arithmetic; distances between u's are `scale` times distances between vectors. Let P have
// orthonormal columns, z = Pᵀu, and ρ = the length of u − Pz. For a query x and a row y
//     |u(x) − u(y)|² ≥ |z(x) − z(y)|² + (ρ(x) − ρ(y))²                                          (1)
//                   = |u(x)|² + |u(y)|² − 2 z(x)·z(y) − 2 ρ(x)ρ(y),                             (2)
// because the rests outside the span contribute at least the difference of their lengths. This
// holds for any leading part of P, so for 8, 16 and all axes.
//
// Rounding (e = 2^-24). The bank's side was computed in double precision and rounded once, outwards
// where it matters: |u(y)|² down, ρ(y) up, boxes outwards. On the query's side
//   * u is computed with relative error 2e per element: two roundings, as scaling is exact;
//   * a coordinate is a sum of `stride` products in blocks: its error is at most n·e·|u| with
//     n = kProjectBlock + blocks + 4, the float32 rounding of the axis and of u included; over r
//     axes the error vector is no longer than  E_r = √r · n · e · |u|;
//   * |u|² is a sum over 32 lanes, relative error (stride/32 + 10)·e;
//   * ρ² = |u|² − |z|² cancels, so an interval for ρ is used: |z|² is off by at most 2 E_r|u| + E_r².
// For (2), with Y the longest |u(y)|: exchanging z for its computed value changes the bound by at
// most 2 E_r Y, rounding the row's coordinates by 2e|u|Y, and summing t terms in float32 by
// (t + 2)·e·(Y² + 12|u|Y), whatever the order: six groups of terms, each at most 2|u|Y, as `tails`
// takes the 16-axis rest back out. These sum to the slack added to the limit.
// In `tails` the T further coordinates t(x), t(y) are known as int8 vectors t'(x), t'(y) with errors
// of length e_x (E_A included) and e_y, so t(x)·t(y) ≤ t'(x)·t'(y) + |t'(x)| e_y + e_x |t(y)|, and
// |t(y)| is at most the length of the rest beyond 16 axes. The sum of products is exact in int32
// and, in float32, correct to a few e. For boxes, (1) is a distance in a space in which
// the computed point is within E_8 of the true one, so √limit grows by E_8. All constants below are
// rounded up generously (factors of 1.01 and more against second-order terms), and a float32 limit
// is rounded upwards. An absolute 1e-30 covers underflow: lengths are at most 1 by choice of scale.
#include "bank_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;

float up(double value) {
    // Enough for any finite double: one part in 2^22 and past the smallest normal float.
    return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37);
}

double squared_length(const float* z, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += static_cast<double>(z[i]) * static_cast<double>(z[i]);
    return sum;
}

}  // namespace

void Bounds::start(const BankView& b, const float* z, float square, const void* codes,
                   const Quantised& quantised) {
    const int axes = kHead + b.tail;
    const double square_error = (static_cast<double>(b.stride) / 32 + 10) * kEps;
    const double square_high = static_cast<double>(square) * (1 + square_error) + kTiny;
    const double length = std::sqrt(square_high);
    const double chain = kProjectBlock + std::ceil(static_cast<double>(b.stride) / kProjectBlock) + 4;
    const double per_axis = chain * kEps * length;
    const auto error = [&](int r) { return std::sqrt(static_cast<double>(r)) * per_axis; };
    const auto rest_square = [&](double z_square, int r) {  // upper end
        return std::max(0.0, square_high - z_square + 2.02 * error(r) * length);
    };
    square_low = static_cast<double>(square) * (1 - square_error) - kTiny;
    scale_square = static_cast<double>(b.scale) * static_cast<double>(b.scale) * (1 + 1e-6);

    const double box_square = squared_length(z, kBoxAxes);
    const double head_square = box_square + squared_length(z + kBoxAxes, kHead - kBoxAxes);
    const double all_square = head_square + squared_length(z + kHead, axes - kHead);
    for (int axis = 0; axis < kBoxAxes; ++axis) box.low[axis] = box.high[axis] = z[axis];
    const double box_low = square_low - box_square - 2.02 * error(kBoxAxes) * length;
    box.low[kBoxAxes] = static_cast<float>(std::sqrt(std::max(0.0, box_low)) * (1 - 2.4e-7));
    box.high[kBoxAxes] = up(std::sqrt(rest_square(box_square, kBoxAxes)));
    box_error = error(kBoxAxes);

    for (int axis = 0; axis < kHead; ++axis) head[axis] = -2 * z[axis];
    head[kHead] = -2 * up(std::sqrt(rest_square(head_square, kHead)));
    const double inflate = 1 + (static_cast<double>(b.tail) / 16 + 12) * kEps;
    const double tail_error = quantised.error * inflate + error(axes) + kTiny;
    tail.rest = -head[kHead] - 2 * up(tail_error);
    tail.step = -2 * quantised.step;
    tail.error = -2 * up(std::sqrt(quantised.square));
    tail.last = -2 * up(std::sqrt(rest_square(all_square, axes)));
    tail.codes = codes;

    const double products = b.longest * (b.longest + 12 * length);
    const auto slack = [&](int r, int terms) {
        return 2.02 * (error(r) + kEps * length) * b.longest + (terms + 2) * kEps * products + kTiny;
    };
    head_slack = slack(kHead, kPanelTerms);
    tail_slack = slack(kHead, kPanelTerms + 12);
}

void Bounds::update(double limit) {
    if (limit > 1e300) {
        box_limit = head_limit = tail_limit = std::numeric_limits<float>::infinity();
        return;
    }
    const double square = limit * scale_square;
    const double reach = std::sqrt(square) + box_error;
    box_limit = up(reach * reach * (1 + 1e-5) + kTiny);
    head_limit = up(square - square_low + head_slack);
    tail_limit = tail_limit_at(limit);
}

float Bounds::tail_limit_at(double limit) const {
    if (limit > 1e300) return std::numeric_limits<float>::infinity();
    return up(limit * scale_square - square_low + tail_slack);
}

}  // namespace adc::search
