// The rows of a coreset job, ordered and bounded for adc_coreset.
#ifndef ADCOMPILE_CORESET_LAYOUT_HPP
#define ADCOMPILE_CORESET_LAYOUT_HPP

#include <cstdint>
#include <vector>

#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "coreset.hpp"

namespace adc::search {

// Like a bank (adcompile/anomaly/bank_layout.py), but computed in float32 with 16 axes, so both
// sides of every bound carry rounding errors; see coreset_layout.cpp.
struct CoresetLayout {
    BankView view;                    // for the kernels: centre, axes, shadow
    std::vector<std::int32_t> order;  // stored row -> row of the job
    std::vector<std::int32_t> place;  // and back
    const float* rows = nullptr;      // stride apart
    std::vector<BoxQuery> boxes;      // of each panel
    std::vector<float> panels;        // [panels][kPanelTerms][16]
    std::vector<float> errors;        // [panels * 16] length of the int8 error
    std::vector<float> rest_low;      // [panels * 16] lower end of the length of the rest
    std::vector<float> squares;       // [panels * 16] squared length
    double axis_error = 0;            // bound on the error vector of 16 coordinates

    const float* row(std::int64_t stored) const {
        return rows + static_cast<std::int64_t>(order[static_cast<std::size_t>(stored)]) * view.stride;
    }

    // False: no memory.
    bool prepare(const adc_coreset_job& job, const Kernels& kernels);

private:
    void measure(const Kernels& kernels, std::int64_t first, std::int64_t last);
    void order_rows();
    void fill(const Kernels& kernels, std::int64_t first_panel, std::int64_t last_panel);
    void fill_row(std::int64_t stored, const Quantised& q, float square);

    AlignedBytes padded_, centre_, axes_, shadow_;
    std::vector<float> coordinates_;  // [count][16]
    std::vector<float> shadow_terms_;
};

}  // namespace adc::search

#endif
