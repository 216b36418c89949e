// Sliding windows: the geometry that convolutions and pools share.
#pragma once

#include "tensor.hpp"

namespace adc::op {

enum class AutoPad { none, same_upper, same_lower, valid };

/// What the model says about a window; empty lists mean 1 (or 0 for pads).
struct WindowSpec {
  Shape kernel;
  Shape strides;
  Shape dilations;
  Shape pads;  // begins, then ends: at most 3 spatial dimensions
  AutoPad auto_pad = AutoPad::none;
  bool ceil = false;
};

/// Geometry along one dimension.
struct Span {
  Index in = 1;
  Index out = 1;
  Index kernel = 1;
  Index stride = 1;
  Index dilation = 1;
  Index before = 0;
  Index after = 0;

  /// True when outputs and inputs are the same places.
  [[nodiscard]] bool idle() const {
    return kernel == 1 && stride == 1 && before == 0 && in == out;
  }
  /// Input position of tap k of output o; may lie outside [0, in).
  [[nodiscard]] Index source(Index o, Index k) const { return o * stride + k * dilation - before; }
  /// distance / stride, rounded up, not below zero. Divisions are slow and most strides are 1.
  [[nodiscard]] Index rounded_up(Index distance) const {
    if (distance <= 0) return 0;
    return stride == 1 ? distance : (distance + stride - 1) / stride;
  }
  /// Outputs [first, last) whose tap k lies inside the input.
  [[nodiscard]] std::pair<Index, Index> valid(Index k) const {
    const Index shift = before - k * dilation;  // source(o) = o * stride - shift
    const Index first = rounded_up(shift);
    const Index last = rounded_up(in + shift);
    return {std::min(first, out), std::min(std::max(last, Index{0}), out)};
  }
};

/// Always three dimensions (depth, height, width); missing ones have size one.
struct Window {
  std::array<Span, 3> dim;
  int spatial = 0;

  [[nodiscard]] Index in_size() const { return dim[0].in * dim[1].in * dim[2].in; }
  [[nodiscard]] Index out_size() const { return dim[0].out * dim[1].out * dim[2].out; }
  [[nodiscard]] Index kernel_size() const {
    return dim[0].kernel * dim[1].kernel * dim[2].kernel;
  }
  /// [n, c] followed by the output's spatial dimensions.
  [[nodiscard]] Shape output(Index n, Index c) const {
    Shape shape{n, c};
    for (std::size_t i = 3 - static_cast<std::size_t>(spatial); i < 3; ++i) {
      shape.push_back(dim[i].out);
    }
    return shape;
  }
};

namespace detail {

inline void size_span(Span& s, AutoPad mode, bool ceil) {
  const Index reach = (s.kernel - 1) * s.dilation + 1;
  require(s.in >= 0 && s.kernel > 0 && s.stride > 0 && s.dilation > 0, "window: bad geometry");
  if (mode == AutoPad::same_upper || mode == AutoPad::same_lower) {
    s.out = (s.in + s.stride - 1) / s.stride;
    const Index total = std::max((s.out - 1) * s.stride + reach - s.in, Index{0});
    s.before = mode == AutoPad::same_upper ? total / 2 : total - total / 2;
    s.after = total - s.before;
    return;
  }
  if (mode == AutoPad::valid) s.before = s.after = 0;
  const Index room = s.in + s.before + s.after - reach;
  require(room >= 0, "window: larger than the padded input");
  s.out = (ceil ? (room + s.stride - 1) / s.stride : room / s.stride) + 1;
  // A last window that would start in the padding behind the input is left out.
  if (ceil && (s.out - 1) * s.stride >= s.in + s.before) --s.out;
}

}  // namespace detail

/// The window over the spatial dimensions of x ([n, c, …]).
inline Window make_window(const Shape& x, const WindowSpec& spec) {
  const int spatial = x.rank() - 2;
  require(spatial >= 1 && spatial <= 3, "window: 1 to 3 spatial dimensions");
  require(spec.kernel.rank() == spatial, "window: kernel of another rank");
  Window w;
  w.spatial = spatial;
  for (int i = 0; i < spatial; ++i) {
    Span& s = w.dim[static_cast<std::size_t>(3 - spatial + i)];
    s.in = x[2 + i];
    s.kernel = spec.kernel[i];
    if (spec.strides.rank() > 0) s.stride = spec.strides[i];
    if (spec.dilations.rank() > 0) s.dilation = spec.dilations[i];
    if (spec.pads.rank() > 0) {
      s.before = spec.pads[i];
      s.after = spec.pads[i + spatial];
    }
    detail::size_span(s, spec.auto_pad, spec.ceil);
  }
  return w;
}

}  // namespace adc::op
