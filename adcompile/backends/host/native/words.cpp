#include "words.hpp"

#include <cstdlib>

#include "tensor.hpp"

namespace adc {

double number_of(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || value != value) {
    fail(name + " needs a number, not '" + text + "'");
  }
  return value;
}

int whole_of(const std::string& name, const std::string& text, int least, int most) {
  const double value = number_of(name, text);
  if (value < least || value > most || value != static_cast<double>(static_cast<int>(value))) {
    fail(name + " needs a whole number from " + std::to_string(least) + " to " +
         std::to_string(most) + ", not '" + text + "'");
  }
  return static_cast<int>(value);
}

std::pair<std::string, std::string> name_and_value(const std::string& where,
                                                   const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) fail(where + " needs NAME=VALUE, not '" + text + "'");
  return {text.substr(0, equals), text.substr(equals + 1)};
}

}  // namespace adc
