// Helpers that all device engines share: buffers on this side, checks against the record.
#pragma once

#include "engine.hpp"
#include "manifest.hpp"

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

/// Fails when the caller gave an option that the engine does not know.
inline void check_options(const EngineContext& context, const std::vector<std::string>& known) {
  for (const auto& given : context.options) {
    if (std::find(known.begin(), known.end(), given.first) != known.end()) continue;
    std::string list;
    for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
    fail(std::string("part ") + context.part->name + ": its runtime has no option '" +
         given.first + "' (known: " + list + ")");
  }
}

/// Position of a port by name, -1 when there is none.
inline int port_index(const std::vector<Port>& ports, const std::string& name) {
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (name == ports[i].name) return static_cast<int>(i);
  }
  return -1;
}

/// True when `convert_elements` knows how: devices may compute in float16.
inline bool convertible(DType have, DType want) {
  const auto real = [](DType d) { return d == DType::kFloat16 || d == DType::kFloat32; };
  return have == want || (real(have) && real(want));
}

/// Compares what a device model declares for a tensor with the bundle's record. Sizes that both fix
/// must agree; -1 may be any size.
inline void check_declared(const std::string& part, const Port& port, DType dtype,
                           const std::vector<Index>& dims) {
  const std::string tensor = part + ": the device model's tensor '" + port.name + "'";
  if (!convertible(dtype, port.dtype)) {
    fail(tensor + " is " + dtype_name(dtype) + ", the bundle says " + dtype_name(port.dtype));
  }
  bool fits = dims.size() == port.dims.size();
  for (std::size_t i = 0; fits && i < dims.size(); ++i) {
    fits = dims[i] == kFree || port.dims[i] == kFree || dims[i] == port.dims[i];
  }
  if (!fits) {
    fail(tensor + " has another shape: " + dims_text(dims) + ", the bundle says " +
         dims_text(port.dims));
  }
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

/// The tensor in another element type, in `memory`.
inline AnyView convert(const AnyView& tensor, DType want, Buffer& memory) {
  const Index count = tensor.shape.size();
  std::byte* to = memory.reserve(static_cast<std::size_t>(count) * element_size(want));
  convert_elements(tensor.data, tensor.dtype, count, want, to);
  return {want, tensor.shape, to};
}

}  // namespace adc
