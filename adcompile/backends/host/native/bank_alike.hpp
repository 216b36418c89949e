// Queries with equal values in their last columns. Feature maps of several layers are joined after the
// deeper ones, with fewer positions, were enlarged; where that repeats their values (nearest), the queries of
// 2 x 2 or more neighbouring positions are the same in most columns, and what these columns contribute is
// computed once.
#ifndef ADCOMPILE_BANK_ALIKE_HPP
#define ADCOMPILE_BANK_ALIKE_HPP

#include <cstdint>

namespace adc::search {

// From which column on, a multiple of kSharedColumns, each four of `count` queries (of `stride` columns)
// that follow each other are alike, bit by bit; `stride` where they are not, or where count is no multiple of 4.
std::int64_t shared_columns(const float* const* x, int count, std::int64_t stride);

// The width of the map whose positions the queries are, if those of 2 x 2 neighbouring positions are alike;
// otherwise, or where such queries follow each other anyway, 0. Found by looking for the next row of positions:
// a wrong width costs time, nothing else.
std::int64_t map_width(const float* queries, std::int64_t count, std::int64_t columns);

}  // namespace adc::search

#endif
