// The rows of a coreset job, with what bounds on their distances need.
#ifndef ADCOMPILE_CORESET_LAYOUT_HPP
#define ADCOMPILE_CORESET_LAYOUT_HPP

#include <cstdint>

#include "bank_bounds.hpp"
#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "coreset.hpp"
#include "bank_team.hpp"

namespace adc::search {

// Like a bank (adcompile/anomaly/bank_layout.py), but computed in float32 with 16 axes and not put
// in order, so both sides of every bound carry rounding errors; see coreset_layout.cpp.
struct CoresetLayout {
    BankView view;  // row_data, centre, scale, row_codes, row_terms; the last term is |codes · step|²
    double axis_error = 0;  // bound on the error vector of 16 coordinates

    // ADC_OK or ADC_NOT_FINITE. Throws std::bad_alloc.
    int prepare(const adc_coreset_job& job, const Kernels& kernels, Team& team);

    // kPanelTerms numbers: squared length (lower end), 16 coordinates, length of the rest (upper end).
    const float* head(std::int64_t row) const { return heads_.as<float>() + row * kPanelTerms; }

    // For the bound of Kernels::heads, a row as one lane of a panel.
    void to_lane(std::int64_t row, float* lane) const;

    // A row as a query of Kernels::check; `codes` has room for view.code_stride * 2 bytes.
    Point point(std::int64_t row, const Kernels& kernels, void* codes) const;

private:
    bool measure(const Kernels& kernels, Team& team);
    double measure(const Kernels& kernels, std::int64_t first, std::int64_t last, float* u);
    void fill(std::int64_t row, const float* z, float square, const Quantised& q);

    AlignedBytes padded_, centre_, axes_, heads_, codes_, terms_;
};

}  // namespace adc::search

#endif
