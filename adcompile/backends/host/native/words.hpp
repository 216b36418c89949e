// Words of a command line, or of an option NAME=VALUE, as numbers.
#pragma once

#include <string>

namespace adc {

inline constexpr int kMostThreads = 256;

/// A number; fails, naming the option, for anything else (NaN included).
[[nodiscard]] double number_of(const std::string& name, const std::string& text);
/// A whole number from `least` to `most`.
[[nodiscard]] int whole_of(const std::string& name, const std::string& text, int least, int most);
/// Splits NAME=VALUE; fails, saying where, when there is no '='.
[[nodiscard]] std::pair<std::string, std::string> name_and_value(const std::string& where,
                                                                 const std::string& text);

}  // namespace adc
