// The generated table of parts.
#pragma once

#include "part.hpp"

namespace parts {

struct Entry {
  const char* name;
  std::unique_ptr<adc::Stage> (*make)(const adc::Resources&);
};

struct WeightsInfo {
  std::size_t payload_bytes;
  const char* sha256;
};

struct StatisticsInfo {
  const char* path;  // from the folder of weights.bin on
  std::size_t bytes;
  const char* sha256;
};

/// All host parts of the bundle, in execution order.
const std::vector<Entry>& table();
/// Size and digest that the side file must have; size 0: there is none.
const WeightsInfo& weights_info();
/// The same for the bank file of statistics; `bytes` counts the whole file.
const StatisticsInfo& statistics_info();

}  // namespace parts
