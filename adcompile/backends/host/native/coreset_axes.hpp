// The directions along which the rows of a coreset job are compared first.
#ifndef ADCOMPILE_CORESET_AXES_HPP
#define ADCOMPILE_CORESET_AXES_HPP

#include <cstdint>

#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_team.hpp"

namespace adc::search {

constexpr int kCoresetAxes = 48;  // at most

// Almost orthonormal columns A, kept as int8 codes with a step for each.
struct CoresetAxes {
    AlignedBytes memory;
    Shadow shadow;     // axes in place of rows, of BankView::code_stride columns; base and error are zero
    int count = 0;     // a multiple of 16; those that are not needed are zero
    float shrink = 1;  // |shrink * A'v| <= |v| for every v
};

// Close to the leading principal axes of `count` points u (view.stride values each, sizes about 1).
// Good ones make the selection fast, any are safe. The axes are those of points halved in this order
// (Kernels::halve). Throws std::bad_alloc.
void choose_axes(const BankView& view, const float* u, std::int64_t count, const std::uint8_t* order, const Kernels& kernels,
                 Team& team, CoresetAxes& out);

}  // namespace adc::search

#endif
