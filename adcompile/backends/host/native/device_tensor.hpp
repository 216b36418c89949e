// Helpers that all device engines share: buffers on this side, checks against the record.
#pragma once

#include "engine.hpp"
#include "json.hpp"

namespace adc {

/// The part's device file: the --engine override, else the bundle's, checked by its manifest.
inline std::string device_file(const EngineContext& context, const std::string& option_name,
                               const std::string& use) {
  const auto given = context.options.find(option_name);
  if (given != context.options.end()) return given->second;
  const std::string path = part_file(context, use);
  check_bundle_file(context.folder, path.substr(context.folder.size() + 1));
  return path;
}

/// Position of a port by name, -1 when there is none.
inline int port_index(const std::vector<Port>& ports, const std::string& name) {
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (name == ports[i].name) return static_cast<int>(i);
  }
  return -1;
}

/// Brings a result to the element type of its port: devices may answer in float16.
inline void convert_elements(const void* from, DType have, Index count, DType want, void* to) {
  if (have == want) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * element_size(have));
    return;
  }
  if (have == DType::kFloat16 && want == DType::kFloat32) {
    const auto* h = static_cast<const Half*>(from);
    auto* f = static_cast<float*>(to);
    for (Index i = 0; i < count; ++i) f[i] = h[i];
    return;
  }
  if (have == DType::kFloat32 && want == DType::kFloat16) {
    const auto* f = static_cast<const float*>(from);
    auto* h = static_cast<Half*>(to);
    for (Index i = 0; i < count; ++i) h[i] = Half(f[i]);
    return;
  }
  fail(std::string("a device tensor is ") + dtype_name(have) + ", the bundle says " +
       dtype_name(want));
}

}  // namespace adc
