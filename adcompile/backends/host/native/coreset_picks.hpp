// The picks of a coreset job, and the distances of rows to them.
#ifndef ADCOMPILE_CORESET_PICKS_HPP
#define ADCOMPILE_CORESET_PICKS_HPP

#include <cstdint>
#include <vector>

#include "coreset_layout.hpp"
#include "coreset_list.hpp"
#include "coreset_nearest.hpp"
#include "coreset_panels.hpp"

namespace adc::search {

// The squared distance of the row that a point stands for to one for which Kernels::check gave `value`,
// and whose point has this error.
Interval interval(const BankView& view, const Point& point, float value, float error);

class Picks {
public:
    // Room for `most` picks. Throws std::bad_alloc.
    Picks(const CoresetLayout& layout, const Kernels& kernels, std::int64_t most);

    std::int32_t count() const { return static_cast<std::int32_t>(rows_.size()); }
    std::int32_t row(std::int32_t pick) const { return rows_[static_cast<std::size_t>(pick)]; }
    void add(std::int32_t row);

    // Memory of one thread.
    struct Scratch {
        std::vector<unsigned char> head_codes, whole_codes;
        std::vector<float> values, checked;
        std::vector<std::uint16_t> masks;
        std::vector<std::int32_t> near;
    };
    Scratch scratch() const;

    // Rows that are caught up together.
    static constexpr int kTogether = 16;
    int together() const;

    // Lowers the rows' upper ends by the int8 distance of each to one pick; `picks` are their numbers. Up to kTogether.
    void lower(const std::int32_t* rows, int count, const std::int32_t* picks, Nearest& nearest, Scratch& scratch) const;

    // Offers up to kTogether rows all picks from number `first` on that may be their nearest.
    void compare(const std::int32_t* rows, int count, std::int32_t first, Nearest& nearest, Scratch& scratch) const;

private:
    void offer(std::int32_t row, int count, Nearest& nearest, Scratch& s) const;

    const CoresetLayout& layout_;
    const Kernels& kernels_;
    std::vector<std::int32_t> rows_;
    Panels heads_;
    PointList halves_, wholes_;
};

}  // namespace adc::search

#endif
