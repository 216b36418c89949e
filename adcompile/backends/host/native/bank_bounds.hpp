// What is known of one query: an approximate point in each shadow's space, an interval for the
// boxes, and limits beyond which nothing can be near.
#ifndef ADCOMPILE_BANK_BOUNDS_HPP
#define ADCOMPILE_BANK_BOUNDS_HPP

#include <cmath>

#include "bank_kernels.hpp"

namespace adc::search {

constexpr double kRounding = 1.01 / 16777216.0;
constexpr double kUnderflow = 1e-30;
constexpr double kErrorPerLength = 4.1 * kRounding;  // of u, by Kernels::encode

// What the computed length of a difference from the codes of so many columns may fall short of, as a factor.
inline double error_scale(std::int64_t columns) { return 1 + (static_cast<double>(columns) / 16 + 12) * kRounding; }

inline float rounded_up(double value) {
    // Enough for any finite double: one part in 2^22 and past the smallest normal float.
    return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37);
}

// A query as an approximate point x' of a shadow's space, and the test of rows against it.
struct Point {
    Probe probe;
    double square, error;  // |x'|², and how far x' may be from the true point
    double rest;           // the float coordinate

    double length() const { return std::sqrt(square); }

    // No row with a squared distance (in the space) up to `square_limit` fails the test hereafter.
    void reach(const BankView& bank, double square_limit);
};

inline void Point::reach(const BankView& bank, double square_limit) {
    const double g = std::sqrt(square_limit) * (1 + 1e-7) + error;
    const double terms = 2 * (square + bank.longest * bank.longest + g * bank.longest);
    probe.slope = -2 * rounded_up(g);
    probe.limit = rounded_up(g * g * (1 + 1e-7) - square + 14 * kRounding * terms + kUnderflow);
}

// The point with these codes, and `more` between what was encoded and the true point.
inline Point point_of(const void* codes, const Quantised& q, std::int32_t bias, std::int64_t columns, double more) {
    Point p;
    p.probe = {codes, -2 * q.step, 0, 0, 0, bias};
    p.square = q.square;
    p.rest = 0;
    p.error = q.error * error_scale(columns) + more + kUnderflow;
    return p;
}

// The point of all compared columns. `codes` by Kernels::encode or quantise, `q` their result;
// `shift_error` is what the former adds to the rounding of u.
inline Point whole_point(const BankView& bank, const void* codes, const Quantised& q, std::int32_t bias,
                  double shift_error) {
    const double length = (1 + q.square) / 2 + q.error;  // of u, at least, but for rounding: no root needed
    return point_of(codes, q, bias, bank.stride, kErrorPerLength * length + shift_error);
}

// Everything about one query. Squared distances in the scale of the vectors as given.
class Bounds {
public:
    // Nothing but the point of all columns.
    void start(const BankView& bank, const Point& whole);

    // And with coordinates z along the axes; `square` is the computed |u|², codes, q and bias are of z.
    void start(const BankView& bank, const Point& whole, const float* z, float square, const void* codes,
               const Quantised& q, std::int32_t bias);

    // And with coordinates z of the codes of all columns, by BankView::axes_copy; without boxes.
    void start(const BankView& bank, const Point& whole, const float* z, const void* codes, const Quantised& q,
               std::int32_t bias);

    // Rows, boxes beyond `limit` need not be looked at. It never grows.
    void update(double limit);

    double limit() const { return limit_; }

    Point whole, head;
    BoxQuery box;
    float box_limit;

private:
    // Rests of a length from `low` to `high`; the codes are of the other coordinates, off by `error`.
    void start_head(double low, double high, double error, const void* codes, const Quantised& q, std::int32_t bias);

    const BankView* bank_ = nullptr;
    bool axes_ = false;
    double limit_ = 0, box_error_ = 0;
};

}  // namespace adc::search

#endif
