// The 16-bit floating-point formats, as storage: arithmetic happens in float.
#pragma once

#include <cstdint>
#include <cstring>

namespace adc {

namespace detail {

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

/// IEEE half to float, exact. Subnormals are scaled by a multiplication, which is exact too.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, NaN
    return bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  const float scaled = bit_cast<float>(magnitude << 13) * 0x1p112f;
  return bit_cast<float>(sign | bit_cast<std::uint32_t>(scaled));
}

/// Float to IEEE half, round to nearest even.
inline std::uint16_t float_to_half(float f) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(f);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t result = 0;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    result = 0x7c00u;  // rounds to infinity
  } else if (magnitude < 0x38800000u) {
    // Below the smallest normal: adding 0.5 moves the wanted bits to the end of the significand,
    // and the addition itself rounds to nearest even.
    const float shifted = bit_cast<float>(magnitude) + 0.5f;
    result = bit_cast<std::uint32_t>(shifted) - 0x3f000000u;
  } else {
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    result = (rounded - 0x38000000u) >> 13;
  }
  return static_cast<std::uint16_t>(sign | result);
}

}  // namespace detail

/// IEEE 754 binary16.
class Half {
 public:
  Half() = default;
  template <class N>
  explicit Half(N value) : bits_(detail::float_to_half(static_cast<float>(value))) {}
  operator float() const { return detail::half_to_float(bits_); }  // NOLINT: as float promotes

  static Half from_bits(std::uint16_t bits) {
    Half h;
    h.bits_ = bits;
    return h;
  }
  [[nodiscard]] std::uint16_t bits() const { return bits_; }

 private:
  std::uint16_t bits_;
};

/// bfloat16: the upper half of a float.
class BFloat16 {
 public:
  BFloat16() = default;
  template <class N>
  explicit BFloat16(N value) : bits_(round_up(static_cast<float>(value))) {}
  operator float() const {  // NOLINT: as float promotes
    return detail::bit_cast<float>(static_cast<std::uint32_t>(bits_) << 16);
  }

  static BFloat16 from_bits(std::uint16_t bits) {
    BFloat16 b;
    b.bits_ = bits;
    return b;
  }
  [[nodiscard]] std::uint16_t bits() const { return bits_; }

 private:
  static std::uint16_t round_up(float f) {
    const std::uint32_t bits = detail::bit_cast<std::uint32_t>(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
  std::uint16_t bits_;
};

static_assert(sizeof(Half) == 2 && sizeof(BFloat16) == 2);

}  // namespace adc
