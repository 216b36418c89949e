// A small bank as it looks in half of its columns.
#ifndef ADCOMPILE_BANK_HALF_HPP
#define ADCOMPILE_BANK_HALF_HPP

#include <cstdint>
#include <vector>

#include "bank_file.hpp"
#include "bank_kernels.hpp"

namespace adc::search {

struct HalfBank {
    BankView view;  // of these columns: `centre`, `picks` and `whole`, no rows
    AlignedBytes memory;
    std::vector<std::int32_t> picks;
};

// Halves a bank without axes. False where half the columns do not hold enough of what distinguishes its
// rows. May throw std::bad_alloc.
bool halve(const BankView& bank, HalfBank& out);

}  // namespace adc::search

#endif
