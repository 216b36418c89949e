// NumPy's .npy files, versions 1 to 3: little-endian numbers in C order.
#pragma once

#include <string>

#include "part.hpp"

namespace adc {

/// A tensor that owns its memory.
struct Array {
  DType dtype = DType::kFloat32;
  Shape shape;
  Buffer memory;

  [[nodiscard]] AnyView view() { return {dtype, shape, memory.data()}; }
};

/// Reads and checks a file; memory use is bounded by the file's size.
[[nodiscard]] Array read_npy(const std::string& path);
/// The same from memory; `where` names the source in errors.
[[nodiscard]] Array parse_npy(const unsigned char* data, std::size_t size,
                              const std::string& where);
void write_npy(const std::string& path, const AnyView& tensor);

/// A whole file, at most `limit` bytes.
[[nodiscard]] std::vector<unsigned char> read_file(const std::string& path, std::size_t limit);

}  // namespace adc
