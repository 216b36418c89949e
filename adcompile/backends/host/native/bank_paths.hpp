// Instruction sets by name.
#ifndef ADCOMPILE_BANK_PATHS_HPP
#define ADCOMPILE_BANK_PATHS_HPP

#include "bank_kernels.hpp"

namespace adc::search {

// The kernels called `path`, or the best ones here for null and "auto"; null when not available.
const Kernels* choose_kernels(const char* path);

}  // namespace adc::search

#endif
