// Quantisation: numbers to small integers and back.
#pragma once

#include "gemm.hpp"

namespace adc::op {

namespace detail {

/// Which scale an element uses: one for all, one per slice of `axis`, or one per block along it.
struct ScaleMap {
  Index inner = 1;
  Index size = 1;
  Index block = 1;
  Index blocks = 1;
  bool one = true;

  [[nodiscard]] Index operator()(Index i) const {
    if (one) return 0;
    const Index column = i % inner;
    const Index slice = i / inner % size;
    const Index outer = i / inner / size;
    if (block == 1 && blocks == size && !blocked) return slice;
    return (outer * blocks + slice / block) * inner + column;
  }
  bool blocked = false;
};

inline ScaleMap scale_map(const Shape& x, const Shape& scale, Index axis, Index block) {
  ScaleMap map;
  if (scale.size() == 1 && block == 0) return map;
  const int a = wrap_axis(axis, x.rank());
  map.one = false;
  map.size = x[a];
  map.inner = x.product(a + 1, x.rank());
  map.blocks = map.size;
  if (block > 0) {
    map.blocked = true;
    map.block = block;
    map.blocks = (map.size + block - 1) / block;
    require(scale.size() == x.product(0, a) * map.blocks * map.inner, "scales do not fit blocks");
  } else {
    require(scale.size() == map.size, "scales do not fit the axis");
  }
  return map;
}

template <class Q, class F>
Q saturate(F value) {
  constexpr auto low = static_cast<F>(std::numeric_limits<Q>::min());
  constexpr auto high = static_cast<F>(std::numeric_limits<Q>::max());
  if (value != value) return Q{0};
  return static_cast<Q>(std::min(std::max(value, low), high));
}

}  // namespace detail

/// saturate(round(x / scale) + zero_point); rounds half to even.
template <class Q, class T, class S>
View<Q> quantize(Out<Q> out, View<T> x, View<S> scale, const View<Q>* zero, Index axis,
                 Index block) {
  const detail::ScaleMap map = detail::scale_map(x.shape(), scale.shape(), axis, block);
  require(zero == nullptr || zero->size() == scale.size(), "QuantizeLinear: zero points do not fit");
  Q* y = out.make(x.shape());
  const Index size = x.size();
  for (Index i = 0; i < size; ++i) {
    const Index s = map(i);
    const float steps = std::nearbyint(static_cast<float>(x[i]) / static_cast<float>(scale[s]));
    const float offset = zero == nullptr ? 0.0f : static_cast<float>((*zero)[s]);
    y[i] = detail::saturate<Q>(steps + offset);
  }
  return {y, x.shape()};
}

/// (x - zero_point) * scale.
template <class T, class Q>
View<T> dequantize(Out<T> out, View<Q> x, View<T> scale, const View<Q>* zero, Index axis,
                   Index block) {
  const detail::ScaleMap map = detail::scale_map(x.shape(), scale.shape(), axis, block);
  require(zero == nullptr || zero->size() == scale.size(),
          "DequantizeLinear: zero points do not fit");
  T* y = out.make(x.shape());
  const Index size = x.size();
  for (Index i = 0; i < size; ++i) {
    const Index s = map(i);
    const auto offset = zero == nullptr ? std::int64_t{0} : static_cast<std::int64_t>((*zero)[s]);
    const auto steps = static_cast<float>(static_cast<std::int64_t>(x[i]) - offset);
    y[i] = T(steps * static_cast<float>(scale[s]));
  }
  return {y, x.shape()};
}

/// Range of x to 8 bits; returns the numbers, the scale and the zero point.
inline std::tuple<View<std::uint8_t>, View<float>, View<std::uint8_t>> dynamic_quantize(
    Out<std::uint8_t> out, Out<float> scale_out, Out<std::uint8_t> zero_out, View<float> x) {
  float low = 0;
  float high = 0;
  for (Index i = 0; i < x.size(); ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  const float scale = (high - low) / 255.0f;
  const float safe = scale == 0.0f ? 1.0f : scale;
  const auto zero = detail::saturate<std::uint8_t>(std::nearbyint(-low / safe));
  std::uint8_t* y = out.make(x.shape());
  for (Index i = 0; i < x.size(); ++i) {
    y[i] = detail::saturate<std::uint8_t>(std::nearbyint(x[i] / safe) + static_cast<float>(zero));
  }
  float* s = scale_out.make(Shape{});
  std::uint8_t* z = zero_out.make(Shape{});
  *s = scale;
  *z = zero;
  return {View<std::uint8_t>(y, x.shape()), View<float>(s, Shape{}),
          View<std::uint8_t>(z, Shape{})};
}

}  // namespace adc::op
