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
#include "coreset_frame.hpp"

namespace adc::search {

// Of one int8 point: the test of Probe holds for its codes with these (bank_bounds.cpp).
struct PointTerms {
    float step, base, error, square;  // as Kernels::check takes them; the squared length
};

// Of the points that stand for a row. A cache line.
struct alignas(64) RowTerms {
    PointTerms head, half, whole;
    std::int32_t head_bias, half_bias, whole_bias;  // Probe::bias
};

// Like a bank (adcompile/anomaly/bank_layout.py), but computed in float32 and not put in order, so
// both sides of every bound carry rounding errors; see coreset_layout.cpp.
struct CoresetLayout {
    BankView view;             // row_data, centre, scale, longest (of all the points)
    std::int64_t head_columns = 0;
    std::int64_t half_columns = 0;  // a multiple of 64; 0: halves tell too little
    std::int64_t whole_columns = 0;

    const std::int8_t* head_codes(std::int64_t row) const { return record(row).codes; }
    const std::int8_t* codes(std::int64_t row) const { return reinterpret_cast<const std::int8_t*>(&record(row) + 1); }
    const RowTerms& terms(std::int64_t row) const { return record(row).terms; }

    // Rows as queries. `out` has room for the columns times kernels.code_bytes; it, or the row's own codes,
    // are those of the point.
    Point head(std::int64_t row, const Kernels& kernels, void* out) const;
    // Those of a tile as Kernels::values takes them, and as `sift` does: no row with a squared distance up to
    // `limit` fails the test.
    void heads(const std::int32_t* rows, int count, const Kernels& kernels, void* codes, Probe* probes) const;
    void reach(std::int64_t row, double limit, Probe& probe) const;
    Point whole(std::int64_t row, const Kernels& kernels, void* out) const;
    Point half(std::int64_t row, const Point& whole) const;

    // Starts to load what is known of a row.
    void fetch(std::int64_t row) const;

    // ADC_OK or ADC_NOT_FINITE, as adc_coreset. Throws std::bad_alloc.
    int prepare(const adc_coreset_job& job, const Kernels& kernels, Team& team);

private:
    struct Scratch;

    bool measure(const Kernels& kernels, Team& team);
    double measure(const Kernels& kernels, std::int64_t first, std::int64_t last, Scratch& scratch);
    double encode(const Kernels& kernels, std::int64_t row, std::int8_t* codes, Scratch& scratch);
    double encode_head(const Kernels& kernels, std::int64_t row, const float* z);

    // What is known of a row lies together, the codes of its whole point last: rows are visited in no order,
    // and each is a miss.
    struct Record {
        RowTerms terms;
        std::int8_t codes[kCoresetAxes];  // of the head
    };
    Record& record(std::int64_t row) const { return *reinterpret_cast<Record*>(records_.data() + row * (static_cast<std::int64_t>(sizeof(Record)) + whole_columns)); }

    CoresetFrame frame_;
    AlignedBytes padded_, records_;
};

}  // namespace adc::search

#endif
