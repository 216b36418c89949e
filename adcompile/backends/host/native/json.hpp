// A small, strict JSON reader for the bundle's own files.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tensor.hpp"

namespace adc {

struct Json {
  enum class Kind { null, boolean, number, text, list, object };
  Kind kind = Kind::null;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;

  /// A member by name, null when there is none (or this is no object).
  [[nodiscard]] const Json* find(const std::string& name) const;
  /// A member of this kind; fails, naming `where`, when there is none.
  [[nodiscard]] const Json& at(const std::string& name, Kind wanted, const std::string& where) const;
};

/// Parses a whole document. Depth is limited to 64, memory by the text's size; duplicate keys and
/// anything after the document are errors. `where` names the source.
[[nodiscard]] Json parse_json(const unsigned char* data, std::size_t size,
                              const std::string& where);

}  // namespace adc
