// Shared by the files that implement the C interface.
#pragma once

#include <exception>
#include <string>

#include "adc_host.h"
#include "part.hpp"

namespace adc::api {

/// The sentence of the last failure on this thread.
std::string& last_error();

/// Runs body; on an exception keeps its text and returns 1.
template <class F>
int guarded(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    try {
      last_error() = error.what();
    } catch (...) {
      last_error().clear();
    }
    return 1;
  }
}

AnyView from_c(const adc_tensor& tensor);
adc_tensor to_c(const AnyView& view);

}  // namespace adc::api
