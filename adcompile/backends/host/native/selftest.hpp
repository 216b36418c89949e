// Replays the bundle's golden data.
#pragma once

#include <cstdio>

#include "bundle.hpp"

namespace adc {

struct SelftestResult {
  int compared = 0;  // tensors
  int different = 0;
  int skipped = 0;   // parts without recorded inputs
};

/// Every host part on the recorded inputs of every sample; a line per tensor goes to `report`.
SelftestResult run_selftest(const std::string& folder, int threads, std::FILE* report);

}  // namespace adc
