// Replays the bundle's golden data.
#pragma once

#include <cstdio>

#include "bundle.hpp"
#include "mosaic.hpp"

namespace adc {

struct SelftestOptions {
  int threads = 1;
  std::string engine;                         // runtime of device parts; "": they are not run
  std::map<std::string, std::string> device;  // its options
};

struct SelftestResult {
  int compared = 0;  // tensors
  int different = 0;
  int skipped = 0;   // parts without recorded inputs
};

/// Every host part, and every device part when a runtime is named, on the recorded inputs of every
/// sample; a line per tensor goes to `report`. Mosaics of regions are checked in any case. Where a device
/// computes, the whole bundle is run as well, and the model's outputs are judged as `adcompile verify` does.
SelftestResult run_selftest(const std::string& folder, const SelftestOptions& options,
                            std::FILE* report);

/// Lays recorded rows out as tiles of every grid of `layout` and cuts them out again, against the
/// definition of a mosaic, pixel by pixel. Returns what is wrong, "" when nothing is.
[[nodiscard]] std::string check_mosaic(const NamedTile& named, const std::vector<TileGrid>& grids,
                                       const AnyView& rows);

}  // namespace adc
