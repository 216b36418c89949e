// Scalar functions behind the elementwise operators. Each is branch-free where that lets a loop of
// them vectorise, and defined for every input: integers wrap, casts saturate.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "half.hpp"
#include "tensor.hpp"

namespace adc {

template <class T>
inline constexpr bool is_float16 = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;
template <class T>
inline constexpr bool is_real = std::is_floating_point_v<T> || is_float16<T>;

/// The type in which sums and transcendental functions of T are computed.
template <class T>
using Compute = std::conditional_t<is_float16<T>, float, T>;

namespace math {

// --- integers wrap around instead of overflowing -------------------------------------------

template <class T, class F>
inline T wrapping(T a, T b, F f) {
  if constexpr (std::is_integral_v<T>) {
    // Unsigned arithmetic wraps; 64 bits hold the low bits of any narrower product.
    return static_cast<T>(f(static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b)));
  } else {
    return T(f(static_cast<Compute<T>>(a), static_cast<Compute<T>>(b)));
  }
}
template <class T>
inline T add(T a, T b) {
  return wrapping(a, b, [](auto x, auto y) { return x + y; });
}
template <class T>
inline T sub(T a, T b) {
  return wrapping(a, b, [](auto x, auto y) { return x - y; });
}
template <class T>
inline T mul(T a, T b) {
  return wrapping(a, b, [](auto x, auto y) { return x * y; });
}
template <class T>
inline T neg(T a) {
  if constexpr (std::is_integral_v<T>) {
    return sub(T{0}, a);
  } else {
    return T(-static_cast<Compute<T>>(a));
  }
}
template <class T>
inline T div(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == T{0}) fail("integer division by zero");
    if constexpr (std::is_signed_v<T>) {
      if (b == T{-1}) return neg(a);
    }
    return static_cast<T>(a / b);
  } else {
    return T(static_cast<Compute<T>>(a) / static_cast<Compute<T>>(b));
  }
}

/// Remainder with the sign of the divisor (Python's %).
template <class T>
inline T mod(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == T{0}) fail("integer remainder by zero");
    if constexpr (std::is_signed_v<T>) {
      if (b == T{-1}) return T{0};
      const T r = static_cast<T>(a % b);
      return static_cast<T>(r != 0 && ((r < 0) != (b < 0)) ? r + b : r);
    } else {
      return static_cast<T>(a % b);
    }
  } else {
    const auto r = std::fmod(static_cast<Compute<T>>(a), static_cast<Compute<T>>(b));
    return T(r != 0 && ((r < 0) != (b < T(0))) ? r + static_cast<Compute<T>>(b) : r);
  }
}
/// Remainder with the sign of the dividend (C's fmod).
template <class T>
inline T fmod(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == T{0}) fail("integer remainder by zero");
    if constexpr (std::is_signed_v<T>) {
      if (b == T{-1}) return T{0};
    }
    return static_cast<T>(a % b);
  } else {
    return T(std::fmod(static_cast<Compute<T>>(a), static_cast<Compute<T>>(b)));
  }
}

// --- comparisons that keep a NaN -------------------------------------------------------------

template <class T>
inline T max(T a, T b) {
  if constexpr (is_real<T>) {
    return (a > b || a != a) ? a : b;
  } else {
    return a > b ? a : b;
  }
}
template <class T>
inline T min(T a, T b) {
  if constexpr (is_real<T>) {
    return (a < b || a != a) ? a : b;
  } else {
    return a < b ? a : b;
  }
}
template <class T>
inline T clip(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// --- conversions -----------------------------------------------------------------------------

/// Value conversion. Reals to integers truncate; out of range saturates and NaN becomes 0.
template <class To, class From>
inline To cast(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<To, bool>) {
    return static_cast<Compute<From>>(x) != Compute<From>{0};
  } else if constexpr (is_real<From> && std::is_integral_v<To>) {
    using F = Compute<From>;
    const F value = static_cast<F>(x);
    // The upper limit itself may not be representable; its successor, a power of two, is.
    constexpr F low = static_cast<F>(std::numeric_limits<To>::min());
    constexpr F past = static_cast<F>(std::numeric_limits<To>::max() / 2 + 1) * F{2};
    if (value != value) return To{0};
    if (value < low) return std::numeric_limits<To>::min();
    if (value >= past) return std::numeric_limits<To>::max();
    return static_cast<To>(value);
  } else if constexpr (is_float16<From>) {
    return To(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

// --- transcendental functions ----------------------------------------------------------------

/// exp to about 1 ulp: 2^n * (1 + r + r^2 P(r)), with 2^n applied in two exact steps so that
/// results down to the subnormals come out right. Vectorises.
inline float exp(float x) {
  const float limited = clip(x, -104.0f, 89.0f);
  const float shifted = limited * 0x1.715476p+0f + 0x1.8p23f;  // nearest integer in the low bits
  const float n = shifted - 0x1.8p23f;
  const float r = (limited - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f;
  float p = 0x1.6d7c48p-10f;
  p = p * r + 0x1.12107p-7f;
  p = p * r + 0x1.5554b2p-5f;
  p = p * r + 0x1.5554d8p-3f;
  p = p * r + 0x1p-1f;
  p = (p * r) * r + r + 1.0f;
  const std::int32_t whole = static_cast<std::int32_t>(n);
  const std::int32_t half = whole / 2;
  const float first = detail::bit_cast<float>((half + 127) << 23);
  const float second = detail::bit_cast<float>((whole - half + 127) << 23);
  const float value = (p * first) * second;
  return x != x ? x : value;
}
inline double exp(double x) { return std::exp(x); }

inline float tanh(float x) {
  const float z = x * x;
  float p = -0x1.90a25ap-8f;
  p = p * z + 0x1.583aacp-6f;
  p = p * z + -0x1.b92c2cp-5f;
  p = p * z + 0x1.110e3ep-3f;
  p = p * z + -0x1.555552p-2f;
  const float near = p * z * x + x;
  const float magnitude = std::fabs(x);
  const float far = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  const float signed_far = x < 0.0f ? -far : far;
  return magnitude < 0.625f ? near : signed_far;
}
inline double tanh(double x) { return std::tanh(x); }

template <class F>
inline F sigmoid(F x) {
  return F{1} / (F{1} + exp(-x));
}
template <class F>
inline F softplus(F x) {
  // log(1 + e^x) without overflow: the larger of x and 0 plus a bounded rest.
  return max(x, F{0}) + std::log1p(exp(-std::fabs(x)));
}
template <class F>
inline F gelu(F x) {
  return F{0.5} * x * (F{1} + std::erf(x * F{0.70710678118654752440}));
}
template <class F>
inline F gelu_tanh(F x) {
  return F{0.5} * x * (F{1} + tanh(F{0.79788456080286535588} * (x + F{0.044715} * x * x * x)));
}
template <class F>
inline F elu(F x, F alpha) {
  return x < F{0} ? alpha * (exp(x) - F{1}) : x;
}
template <class F>
inline F celu(F x, F alpha) {
  return max(F{0}, x) + min(F{0}, alpha * (exp(x / alpha) - F{1}));
}
template <class F>
inline F selu(F x, F alpha, F gamma) {
  return gamma * (x <= F{0} ? alpha * exp(x) - alpha : x);
}
template <class F>
inline F hard_sigmoid(F x, F alpha, F beta) {
  return clip(alpha * x + beta, F{0}, F{1});
}
template <class F>
inline F shrink(F x, F bias, F lambda) {
  return x < -lambda ? x + bias : (x > lambda ? x - bias : F{0});
}

template <class T>
inline T abs(T x) {
  if constexpr (std::is_unsigned_v<T>) {
    return x;
  } else if constexpr (std::is_integral_v<T>) {
    return x < 0 ? neg(x) : x;
  } else {
    return T(std::fabs(static_cast<Compute<T>>(x)));
  }
}
template <class T>
inline T sign(T x) {
  if constexpr (is_real<T>) {
    return x != x ? x : T((x > T(0)) - (x < T(0)));
  } else {
    return static_cast<T>((x > T{0}) - (x < T{0}));
  }
}

/// Whole-number power by squaring; wraps. A negative exponent of an integer base truncates to 0.
template <class T, class E>
inline T int_pow(T base, E exponent) {
  if constexpr (std::is_signed_v<E>) {
    if (exponent < 0) return base == T{1} ? T{1} : (base == T(-1) ? (exponent % 2 ? base : T{1}) : T{0});
  }
  T result{1};
  for (auto e = static_cast<std::uint64_t>(exponent); e != 0; e >>= 1) {
    if (e & 1) result = mul(result, base);
    base = mul(base, base);
  }
  return result;
}
template <class T, class E>
inline T pow(T base, E exponent) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<E>) {
    return int_pow(base, exponent);
  } else if constexpr (std::is_integral_v<T>) {
    return cast<T>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  } else {
    using F = Compute<T>;
    return T(std::pow(static_cast<F>(base), static_cast<F>(exponent)));
  }
}

template <class T>
inline T shift_left(T x, T by) {
  return by >= static_cast<T>(8 * sizeof(T)) ? T{0} : static_cast<T>(x << by);
}
template <class T>
inline T shift_right(T x, T by) {
  return by >= static_cast<T>(8 * sizeof(T)) ? T{0} : static_cast<T>(x >> by);
}

}  // namespace math
}  // namespace adc
