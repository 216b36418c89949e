// Resampling: nearest, linear and cubic, one axis after the other.
#pragma once

#include "move.hpp"

namespace adc::op {

enum class Resample { nearest, linear, cubic };
enum class Coordinates {
  half_pixel,
  half_pixel_symmetric,
  pytorch_half_pixel,
  align_corners,
  asymmetric,
  tf_crop_and_resize
};
enum class Rounding { prefer_floor, prefer_ceil, floor, ceil };
enum class Aspect { stretch, not_larger, not_smaller };

struct ResizeSpec {
  Resample mode = Resample::nearest;
  Coordinates coordinates = Coordinates::half_pixel;
  Rounding rounding = Rounding::prefer_floor;
  Aspect aspect = Aspect::stretch;
  bool antialias = false;
  bool exclude_outside = false;
  float cubic_a = -0.75f;
  float extrapolation = 0.0f;
};

namespace detail {

/// One axis: sizes, scale (output over input) and the cropped range for tf_crop_and_resize.
struct ResizeAxis {
  Index in = 1;
  Index out = 1;
  double scale = 1.0;
  double crop_start = 0.0;
  double crop_end = 1.0;
};

/// Where output i lies in the input, before limits.
inline double raw_position(const ResizeAxis& a, Coordinates mode, Index i) {
  const auto x = static_cast<double>(i);
  const auto in = static_cast<double>(a.in);
  const auto out = static_cast<double>(a.out);
  switch (mode) {
    case Coordinates::half_pixel:
      return (x + 0.5) / a.scale - 0.5;
    case Coordinates::half_pixel_symmetric: {
      // The exact output length may be fractional; the difference is spread to both sides.
      const double adjusted = out / (a.scale * in);
      return in / 2 * (1 - adjusted) + (x + 0.5) / a.scale - 0.5;
    }
    case Coordinates::pytorch_half_pixel:
      return a.out > 1 ? (x + 0.5) / a.scale - 0.5 : 0.0;
    case Coordinates::align_corners:
      return a.out > 1 ? x * (in - 1) / (out - 1) : 0.0;
    case Coordinates::asymmetric:
      return x / a.scale;
    case Coordinates::tf_crop_and_resize:
      return a.out > 1 ? a.crop_start * (in - 1) +
                             x * (a.crop_end - a.crop_start) * (in - 1) / (out - 1)
                       : 0.5 * (a.crop_start + a.crop_end) * (in - 1);
  }
  return 0.0;
}

/// Where output i lies in the input; broken numbers in the model's inputs stay harmless.
inline double source_position(const ResizeAxis& a, Coordinates mode, Index i) {
  constexpr double kFar = 1e12;
  const double p = raw_position(a, mode, i);
  return p == p ? std::min(std::max(p, -kFar), kFar) : 0.0;
}

inline Index nearest_index(double position, Rounding rounding, Index n) {
  double r = 0;
  switch (rounding) {
    case Rounding::prefer_floor:
      r = std::ceil(position - 0.5);
      break;
    case Rounding::prefer_ceil:
      r = std::floor(position + 0.5);
      break;
    case Rounding::floor:
      r = std::floor(position);
      break;
    case Rounding::ceil:
      r = std::ceil(position);
      break;
  }
  return std::min(std::max(static_cast<Index>(r), Index{0}), n - 1);
}

inline double cubic_weight(double t, double a) {
  t = std::fabs(t);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return ((t - 5) * t + 8) * t * a - 4 * a;
  return 0;
}

/// Taps of one output: `count` neighbours from `first` on, clamped to the border when used.
struct Taps {
  Index first;
  Index count;
};

/// Weights of output i at `position`; returns which inputs they belong to.
inline Taps resample_weights(const ResizeSpec& spec, const ResizeAxis& a, double position,
                             float* weight) {
  const bool cubic = spec.mode == Resample::cubic;
  const double shrink = spec.antialias && a.scale < 1 ? a.scale : 1.0;
  const double support = (cubic ? 2.0 : 1.0) / shrink;
  const auto first = static_cast<Index>(std::floor(position - support)) + 1;
  const auto last = static_cast<Index>(std::ceil(position + support)) - 1;
  const Index count = std::max(last - first + 1, Index{1});
  double total = 0;
  for (Index k = 0; k < count; ++k) {
    const double t = (position - static_cast<double>(first + k)) * shrink;
    double w = cubic ? cubic_weight(t, static_cast<double>(spec.cubic_a))
                     : std::max(0.0, 1.0 - std::fabs(t));
    const bool outside = first + k < 0 || first + k >= a.in;
    if (outside && spec.exclude_outside) w = 0;
    weight[k] = static_cast<float>(w);
    total += w;
  }
  if ((spec.exclude_outside || spec.antialias) && total != 0) {
    for (Index k = 0; k < count; ++k) {
      weight[k] = static_cast<float>(static_cast<double>(weight[k]) / total);
    }
  }
  return {first, count};
}

inline Index most_taps(const ResizeSpec& spec, const ResizeAxis& a) {
  const double shrink = spec.antialias && a.scale < 1 ? a.scale : 1.0;
  return static_cast<Index>(std::ceil((spec.mode == Resample::cubic ? 2.0 : 1.0) / shrink)) * 2 + 2;
}

/// Resamples the middle dimension of [outer, in, inner] with a table of taps.
template <class T>
void resample_axis(const T* x, Index outer, Index inner, const ResizeAxis& a, const Taps* taps,
                   const float* weights, Index stride, T* y) {
  using F = Compute<T>;
  const Index in = a.in;
  const Index out = a.out;
  const auto clamp = [in](Index i) { return std::min(std::max(i, Index{0}), in - 1); };
  parallel_for(outer, 1 + (1 << 15) / (out * inner + 1), [&](Index from, Index to) {
    for (Index o = from; o < to; ++o) {
      const T* plane = x + o * in * inner;
      T* result = y + o * out * inner;
      for (Index j = 0; j < out; ++j) {
        const float* w = weights + j * stride;
        if (inner == 1) {
          F total{};
          for (Index k = 0; k < taps[j].count; ++k) {
            total += static_cast<F>(w[k]) * static_cast<F>(plane[clamp(taps[j].first + k)]);
          }
          result[j] = math::cast<T>(total);
          continue;
        }
        T* row = result + j * inner;
        if (taps[j].count == 2) {
          const T* p = plane + clamp(taps[j].first) * inner;
          const T* q = plane + clamp(taps[j].first + 1) * inner;
          const F wp = static_cast<F>(w[0]);
          const F wq = static_cast<F>(w[1]);
          for (Index i = 0; i < inner; ++i) {
            row[i] = math::cast<T>(wp * static_cast<F>(p[i]) + wq * static_cast<F>(q[i]));
          }
          continue;
        }
        for (Index i = 0; i < inner; ++i) {
          F total{};
          for (Index k = 0; k < taps[j].count; ++k) {
            total += static_cast<F>(w[k]) *
                     static_cast<F>(plane[clamp(taps[j].first + k) * inner + i]);
          }
          row[i] = math::cast<T>(total);
        }
      }
    }
  });
}

template <class T>
void pick_axis(const T* x, Index outer, Index inner, const ResizeAxis& a, const Index* source,
               T* y) {
  for (Index o = 0; o < outer; ++o) {
    if (inner == 1) {
      for (Index j = 0; j < a.out; ++j) y[o * a.out + j] = x[o * a.in + source[j]];
      continue;
    }
    for (Index j = 0; j < a.out; ++j) {
      copy_elements(x + (o * a.in + source[j]) * inner, inner, y + (o * a.out + j) * inner);
    }
  }
}

}  // namespace detail

/// Sizes and scales of all axes, from whichever of the two the model gives.
struct ResizePlan {
  std::array<detail::ResizeAxis, kMaxRank> axis;
  Shape shape;
};

/// `axes` empty: all of them. Exactly one of `scales` and `sizes` has elements.
inline ResizePlan plan_resize(const Shape& x, const Shape& axes, View<float> roi,
                              View<float> scales, const Shape& sizes, const ResizeSpec& spec) {
  ResizePlan plan;
  plan.shape = x;
  const int given = axes.rank() == 0 ? x.rank() : axes.rank();
  const bool by_size = sizes.rank() > 0;
  require(by_size ? sizes.rank() == given : scales.size() == given, "Resize: wrong number of sizes");
  double common = 0;
  for (int k = 0; k < given && by_size && spec.aspect != Aspect::stretch; ++k) {
    const int a = axes.rank() == 0 ? k : wrap_axis(axes[k], x.rank());
    const double s = static_cast<double>(sizes[k]) / static_cast<double>(x[a]);
    const bool smaller = spec.aspect == Aspect::not_larger ? s < common : s > common;
    if (k == 0 || smaller) common = s;
  }
  for (int i = 0; i < x.rank(); ++i) {
    plan.axis[static_cast<std::size_t>(i)].in = x[i];
    plan.axis[static_cast<std::size_t>(i)].out = x[i];
  }
  for (int k = 0; k < given; ++k) {
    const int a = axes.rank() == 0 ? k : wrap_axis(axes[k], x.rank());
    detail::ResizeAxis& axis = plan.axis[static_cast<std::size_t>(a)];
    if (by_size) {
      axis.out = sizes[k];
      axis.scale = static_cast<double>(sizes[k]) / static_cast<double>(x[a]);
      if (common > 0) {
        axis.scale = common;
        axis.out = static_cast<Index>(std::floor(common * static_cast<double>(x[a]) + 0.5));
      }
    } else {
      axis.scale = static_cast<double>(scales[k]);
      axis.out = static_cast<Index>(std::floor(static_cast<double>(x[a]) * axis.scale));
    }
    require(axis.out >= 0, "Resize: negative size");
    if (roi.size() == 2 * given) {
      axis.crop_start = static_cast<double>(roi[k]);
      axis.crop_end = static_cast<double>(roi[k + given]);
    }
    plan.shape[a] = axis.out;
  }
  return plan;
}

template <class T>
View<T> resize(Out<T> out, Scratch& scratch, View<T> x, const ResizePlan& plan,
               const ResizeSpec& spec) {
  T* y = out.make(plan.shape);
  const Index size = plan.shape.size();
  if (size == 0) return {y, plan.shape};
  require(x.size() > 0, "Resize: nothing to enlarge");
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (spec.mode != Resample::nearest) {
      // Weights are fractions: whole numbers go through real ones and are cut at the end.
      using Real = std::conditional_t<sizeof(T) <= 2, float, double>;
      Real* wide = scratch.take<Real>(4, x.size());
      for (Index i = 0; i < x.size(); ++i) wide[i] = static_cast<Real>(x[i]);
      Real* made = scratch.take<Real>(5, size);
      const Out<Real> place(reinterpret_cast<std::byte*>(made), plan.shape);
      resize(place, scratch, View<Real>(wide, x.shape()), plan, spec);
      for (Index i = 0; i < size; ++i) y[i] = math::cast<T>(made[i]);
      return {y, plan.shape};
    }
  }
  const bool crop = spec.coordinates == Coordinates::tf_crop_and_resize;
  // Axes that shrink first: the intermediate tensors stay small. Of those alike, the last axis
  // first: the step after it then moves whole rows.
  std::array<int, kMaxRank> order{};
  int count = 0;
  const auto scale_of = [&plan](int i) { return plan.axis[static_cast<std::size_t>(i)].scale; };
  for (int i = x.rank() - 1; i >= 0; --i) {
    const detail::ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
    if (a.in == a.out && a.scale == 1.0 && !crop) continue;
    int at = count++;
    for (; at > 0 && scale_of(order[static_cast<std::size_t>(at - 1)]) > a.scale; --at) {
      order[static_cast<std::size_t>(at)] = order[static_cast<std::size_t>(at - 1)];
    }
    order[static_cast<std::size_t>(at)] = i;
  }
  if (count == 0) {
    copy_elements(x.data(), size, y);
    return {y, plan.shape};
  }
  const T* from = x.data();
  Shape now = x.shape();
  for (int step = 0; step < count; ++step) {
    const int i = order[static_cast<std::size_t>(step)];
    const detail::ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
    const Index outer = now.product(0, i);
    const Index inner = now.product(i + 1, now.rank());
    now[i] = a.out;
    // The last axis writes the result; the others alternate between two temporaries.
    T* to = step + 1 == count
                ? y
                : scratch.take<T>(static_cast<std::size_t>(step % 2), now.size());
    if (spec.mode == Resample::nearest) {
      Index* source = scratch.take<Index>(2, a.out);
      for (Index j = 0; j < a.out; ++j) {
        const double position = detail::source_position(a, spec.coordinates, j);
        source[j] = detail::nearest_index(position, spec.rounding, a.in);
      }
      detail::pick_axis(from, outer, inner, a, source, to);
    } else {
      const Index stride = detail::most_taps(spec, a);
      auto* taps = scratch.take<detail::Taps>(2, a.out);
      float* weights = scratch.take<float>(3, checked_product(a.out, stride));
      for (Index j = 0; j < a.out; ++j) {
        const double position = detail::source_position(a, spec.coordinates, j);
        taps[j] = detail::resample_weights(spec, a, position, weights + j * stride);
      }
      detail::resample_axis(from, outer, inner, a, taps, weights, stride, to);
    }
    from = to;
  }
  if (!crop) return {y, plan.shape};
  Axes at{};
  for (Index k = 0; k < size; ++k) {
    for (int i = 0; i < plan.shape.rank(); ++i) {
      const detail::ResizeAxis& a = plan.axis[static_cast<std::size_t>(i)];
      const double p = detail::source_position(a, spec.coordinates, at[static_cast<std::size_t>(i)]);
      if (p < 0 || p > static_cast<double>(a.in - 1)) y[k] = math::cast<T>(spec.extrapolation);
    }
    for (int d = plan.shape.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<std::size_t>(d)] < plan.shape[d]) break;
      at[static_cast<std::size_t>(d)] = 0;
    }
  }
  return {y, plan.shape};
}

}  // namespace adc::op
