// Declarations of the DRP-AI driver, written from its documentation; see NvInfer.h.
#pragma once

#include <cstdint>

struct drpai_data_t {
  std::uint64_t address;
  std::uint64_t size;
};

#define DRPAI_GET_DRPAI_AREA 0x400c460bUL
