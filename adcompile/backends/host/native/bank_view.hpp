// A checked bank: pointers into the bytes of a bank file.
#ifndef ADCOMPILE_BANK_VIEW_HPP
#define ADCOMPILE_BANK_VIEW_HPP

#include <string>

#include "bank_file.hpp"
#include "bank_kernels.hpp"

namespace adc::search {

// Checks that the container is a searchable bank (sections, shapes, values) and points into it.
bool view_bank(const Container& file, BankView& out, std::string& why);

}  // namespace adc::search

#endif
