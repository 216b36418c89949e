// How the C interfaces answer.
#ifndef ADCOMPILE_BANK_STATUS_HPP
#define ADCOMPILE_BANK_STATUS_HPP

#include <cstddef>
#include <cstdio>
#include <string>

namespace adc::search {

// Returns the status and writes why into the caller's buffer, if there is one; cut to its size.
inline int say(int status, char* message, std::size_t size, const std::string& text) {
    if (message != nullptr && size > 0) std::snprintf(message, size, "%s", text.c_str());
    return status;
}

}  // namespace adc::search

#endif
