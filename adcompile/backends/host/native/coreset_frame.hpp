// Where the bounds of a coreset job are computed: centre, scale, halves and axes.
#ifndef ADCOMPILE_CORESET_FRAME_HPP
#define ADCOMPILE_CORESET_FRAME_HPP

#include <cstdint>
#include <vector>

#include "bank_kernels.hpp"
#include "bank_team.hpp"
#include "coreset_axes.hpp"

namespace adc::search {

struct CoresetFrame {
    AlignedBytes centre;              // [stride]
    std::vector<std::uint8_t> order;  // [stride], as Kernels::halve takes it
    double first_half = 0;            // which share of the rows' squared lengths is in the first half
    CoresetAxes axes;                 // of halved points
};

// Of `rows` (view.rows of them, view.stride apart, zero-padded): chooses a frame from a sample, sets view.scale
// and view.centre. Good choices make the selection fast, any are safe. Throws std::bad_alloc.
void choose_frame(BankView& view, const float* rows, const Kernels& kernels, Team& team, CoresetFrame& out);

// A power of two that brings every row's distance from the centre to at most 1; every `step`-th
// row is looked at. 1 where all of them are at the centre, or one is not finite.
float unit_scale(const BankView& view, const float* rows, std::int64_t step, const Kernels& kernels);

}  // namespace adc::search

#endif
