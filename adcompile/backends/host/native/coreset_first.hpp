// Which row of a coreset job is picked first, where the caller does not say.
#ifndef ADCOMPILE_CORESET_FIRST_HPP
#define ADCOMPILE_CORESET_FIRST_HPP

#include <cstdint>

#include "bank_team.hpp"
#include "coreset_layout.hpp"

namespace adc::search {

// The row farthest from the mean of all rows in double precision, the lowest number among equals.
// Sums are in the order that adcompile/anomaly/coreset_reference.py states. Throws std::bad_alloc.
std::int64_t farthest_from_mean(const CoresetLayout& layout, Team& team);

}  // namespace adc::search

#endif
