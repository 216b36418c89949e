// What is known of one query: an approximate point in each shadow's space, an interval for the
// boxes, and limits beyond which nothing can be near.
#ifndef ADCOMPILE_BANK_BOUNDS_HPP
#define ADCOMPILE_BANK_BOUNDS_HPP

#include "bank_kernels.hpp"

namespace adc::search {

// A query as an approximate point x' of a shadow's space, and the test of rows against it.
struct Point {
    Probe probe;
    double square, length, error;  // |x'|², |x'|, and how far x' may be from the true point
    double rest;                   // the float coordinate

    // No row with a squared distance (in the space) up to `square_limit` fails the test hereafter.
    void reach(const BankView& bank, double square_limit);
};

// The point of all columns. `codes` by Kernels::encode or quantise, `q` their result; `shift_error`
// is what the former adds to the rounding of u.
Point whole_point(const BankView& bank, const void* codes, const Quantised& q, std::int32_t bias,
                  double shift_error);

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
