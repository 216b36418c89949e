// An int8 copy of a bank's axes: projects int8 queries with the kernels that compare them with rows.
#ifndef ADCOMPILE_BANK_AXES_HPP
#define ADCOMPILE_BANK_AXES_HPP

#include "bank_file.hpp"
#include "bank_kernels.hpp"

namespace adc::search {

struct AxesCopy {
    AlignedBytes memory;
    Shadow shadow;     // the axes in place of rows, then what these codes leave; base and error are zero
    double error = 0;  // no coordinate vector of a point is off by more, per length of the point
};

// Copies the axes of a bank that has some. False: no memory.
bool copy_axes(const BankView& bank, AxesCopy& out);

}  // namespace adc::search

#endif
