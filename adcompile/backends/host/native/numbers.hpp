// Numbers of tensors whose element type is only known while running.
#pragma once

#include "part.hpp"

namespace adc {

/// Element `i` at `data` as a double.
using Reader = double (*)(const void* data, Index i);

/// How to read this element type.
[[nodiscard]] Reader reader_of(DType dtype);

}  // namespace adc
