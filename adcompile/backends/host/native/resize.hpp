// Resampling: nearest, linear and cubic, one axis after the other.
#pragma once

#include "resize_axis.hpp"

namespace adc::op {

namespace detail {

/// The axes that change, in the order in which to go through them: those that shrink first, so that
/// the intermediate tensors stay small; of those alike the last first, so that the steps after it
/// move whole rows.
struct ResizeOrder {
  std::array<int, kMaxRank> axis{};
  int count = 0;

  ResizeOrder(const ResizePlan& plan, int rank, bool crop) {
    const auto scale = [&plan](int i) { return plan.axis[static_cast<std::size_t>(i)].scale; };
    for (int i = rank - 1; i >= 0; --i) {
      const ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
      if (a.in == a.out && a.scale == 1.0 && !crop) continue;
      int at = count++;
      for (; at > 0 && scale((*this)[at - 1]) > a.scale; --at) (*this)[at] = (*this)[at - 1];
      (*this)[at] = i;
    }
  }
  int& operator[](int step) { return axis[static_cast<std::size_t>(step)]; }
};

template <class T>
void resize_axis(Scratch& scratch, const T* x, Index outer, const ResizeAxis& a, Index inner,
                 const ResizeSpec& spec, const Rows<T>& y) {
  if (spec.mode == Resample::nearest) {
    Index* source = scratch.take<Index>(2, a.out);
    for (Index j = 0; j < a.out; ++j) {
      const double position = source_position(a, spec.coordinates, j);
      source[j] = nearest_index(position, spec.rounding, a.in);
    }
    return pick_axis(x, outer, a, inner, source, y);
  }
  const Index stride = most_taps(spec, a);
  auto* taps = scratch.take<Taps>(2, a.out);
  float* weights = scratch.take<float>(3, checked_product(a.out, stride));
  for (Index j = 0; j < a.out; ++j) {
    const double position = source_position(a, spec.coordinates, j);
    taps[j] = resample_weights(spec, a, position, weights + j * stride);
  }
  resample_axis(x, outer, a.out, inner, TapTable{taps, weights, stride, a.in}, y);
}

/// What lies outside the cropped range gets the model's value.
template <class T>
void extrapolate(const ResizePlan& plan, const ResizeSpec& spec, const Rows<T>& y) {
  Axes at{};
  const Index size = plan.shape.size();
  for (Index k = 0; k < size; ++k) {
    for (int i = 0; i < plan.shape.rank(); ++i) {
      const ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
      const double p = source_position(a, spec.coordinates, at[static_cast<std::size_t>(i)]);
      if (p < 0 || p > static_cast<double>(a.in - 1)) *y.at(k) = math::cast<T>(spec.extrapolation);
    }
    for (int d = plan.shape.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < plan.shape[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
}

template <class T>
void resize_to(Scratch& scratch, View<T> x, const ResizePlan& plan, const ResizeSpec& spec,
               const Rows<T>& y) {
  const Index size = plan.shape.size();
  if (size == 0) return;
  require(x.size() > 0, "Resize: nothing to enlarge");
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (spec.mode != Resample::nearest) {
      // Weights are fractions: whole numbers go through real ones and are cut at the end.
      using Real = std::conditional_t<sizeof(T) <= 2, float, double>;
      Real* wide = scratch.take<Real>(4, x.size());
      for (Index i = 0; i < x.size(); ++i) wide[i] = static_cast<Real>(x[i]);
      Real* made = scratch.take<Real>(5, size);
      resize_to(scratch, View<Real>(wide, x.shape()), plan, spec, Rows<Real>(made, size));
      y.each(0, size, [made](T* to, Index first, Index n) {
        for (Index i = 0; i < n; ++i) to[i] = math::cast<T>(made[first + i]);
      });
      return;
    }
  }
  const bool crop = spec.coordinates == Coordinates::tf_crop_and_resize;
  ResizeOrder order(plan, x.rank(), crop);
  if (order.count == 0) return y.put(0, x.data(), size);
  const T* from = x.data();
  Shape now = x.shape();
  for (int step = 0; step < order.count; ++step) {
    const int i = order[step];
    const ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
    const Index outer = now.product(0, i);
    const Index inner = now.product(i + 1, now.rank());
    now[i] = a.out;
    if (step + 1 == order.count) {  // the last axis writes the result
      resize_axis(scratch, from, outer, a, inner, spec, y);
      break;
    }
    T* to = scratch.take<T>(static_cast<std::size_t>(step % 2), now.size());
    resize_axis(scratch, from, outer, a, inner, spec, Rows<T>(to, now.size()));
    from = to;
  }
  if (crop) extrapolate(plan, spec, y);
}

}  // namespace detail

/// A resampled tensor that is only made where it is written to: a piece of a join.
template <class T>
class Resized {
 public:
  Resized(Scratch& scratch, View<T> x, const ResizePlan& plan, const ResizeSpec& spec)
      : scratch_(scratch), x_(x), plan_(plan), spec_(spec) {}
  [[nodiscard]] const Shape& shape() const { return plan_.shape; }
  void write(const Rows<T>& y) const { detail::resize_to(scratch_, x_, plan_, spec_, y); }

 private:
  Scratch& scratch_;
  View<T> x_;
  ResizePlan plan_;
  ResizeSpec spec_;
};

template <class T>
View<T> resize(Out<T> out, Scratch& scratch, View<T> x, const ResizePlan& plan,
               const ResizeSpec& spec) {
  T* y = out.make(plan.shape);
  detail::resize_to(scratch, x, plan, spec, Rows<T>(y, plan.shape.size()));
  return {y, plan.shape};
}
template <class T>
Resized<T> resized(Scratch& scratch, View<T> x, const ResizePlan& plan, const ResizeSpec& spec) {
  return {scratch, x, plan, spec};
}

}  // namespace adc::op
