// The rows of a coreset job, with what bounds on their distances need.
#ifndef ADCOMPILE_CORESET_LAYOUT_HPP
#define ADCOMPILE_CORESET_LAYOUT_HPP

#include <cstdint>
#include <vector>

#include "bank_bounds.hpp"
#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_team.hpp"
#include "coreset.hpp"
#include "coreset_axes.hpp"

namespace adc::search {

// Int8 points row by row, each with kRowTerms terms: step, base, error, squared length. The test
// of Probe holds for them (bank_bounds.cpp).
struct CodedRows {
    std::int64_t columns = 0;
    AlignedBytes code_bytes, term_bytes;
    std::vector<std::int32_t> biases;  // Probe::bias

    void allocate(std::int64_t rows, std::int64_t columns);  // throws std::bad_alloc
    std::int8_t* codes(std::int64_t row) const { return code_bytes.as<std::int8_t>() + row * columns; }
    float* terms(std::int64_t row) const { return term_bytes.as<float>() + row * kRowTerms; }

    // A row as a query; `out` has room for columns * kernels.code_bytes.
    Point point(std::int64_t row, const Kernels& kernels, void* out) const;
};

// Like a bank (adcompile/anomaly/bank_layout.py), but computed in float32 and not put in order, so
// both sides of every bound carry rounding errors; see coreset_layout.cpp.
struct CoresetLayout {
    BankView view;    // row_data, centre, scale, row_codes, row_terms, longest (of all the points)
    CodedRows whole;  // all columns
    CodedRows head;   // along the axes

    // ADC_OK or ADC_NOT_FINITE. Throws std::bad_alloc.
    int prepare(const adc_coreset_job& job, const Kernels& kernels, Team& team);

private:
    struct Scratch;

    bool measure(const Kernels& kernels, Team& team);
    double measure(const Kernels& kernels, std::int64_t first, std::int64_t last, Scratch& scratch);
    double encode(const Kernels& kernels, std::int64_t row, float* u);
    double encode_head(const Kernels& kernels, std::int64_t row, const float* z);

    CoresetAxes axes_;
    AlignedBytes padded_, centre_;
};

}  // namespace adc::search

#endif
