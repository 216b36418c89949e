// Where the bounds of a coreset job are computed: centre, scale and axes.
#ifndef ADCOMPILE_CORESET_FRAME_HPP
#define ADCOMPILE_CORESET_FRAME_HPP

#include <cstdint>

#include "bank_kernels.hpp"
#include "bank_team.hpp"
#include "coreset_axes.hpp"

namespace adc::search {

// Of `rows` (view.rows of them, view.stride apart, zero-padded): writes the mean of a sample to
// `centre` [stride], sets view.scale and view.centre, and chooses axes from the sample. Good ones
// make the selection fast, any are safe. Throws std::bad_alloc.
void choose_frame(BankView& view, const float* rows, const Kernels& kernels, Team& team, float* centre, CoresetAxes& axes);

// A power of two that brings every row's distance from the centre to at most 1; every `step`-th
// row is looked at. 1 where all of them are at the centre, or one is not finite.
float unit_scale(const BankView& view, const float* rows, std::int64_t step, const Kernels& kernels);

}  // namespace adc::search

#endif
