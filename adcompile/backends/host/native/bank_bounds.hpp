// Lower bounds on the distance from one query to boxes and rows, in the space of principal axes.
#ifndef ADCOMPILE_BANK_BOUNDS_HPP
#define ADCOMPILE_BANK_BOUNDS_HPP

#include "bank_kernels.hpp"

namespace adc::search {

// Coefficients for Kernels::boxes, scan and tails, and the limits their results are compared with.
struct Bounds {
    BoxQuery box;
    float head[kHead + 1];
    TailQuery tail;
    double scale_square, square_low, box_error, head_slack, tail_slack;
    float box_limit, head_limit, tail_limit;

    // z: the query's computed coordinates; square: its computed squared length; codes: `tail` as
    // int8 by Kernels::quantise, with its result.
    void start(const BankView& bank, const float* z, float square, const void* codes,
               const Quantised& quantised);

    // Nothing with a bound above these can be within `limit`, a squared distance.
    void update(double limit);
    float tail_limit_at(double limit) const;
};

}  // namespace adc::search

#endif
