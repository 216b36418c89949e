// Resampling: what the model says about it, and where every output lies in the input.
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

}  // namespace adc::op
