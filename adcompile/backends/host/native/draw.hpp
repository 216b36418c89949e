// Pictures of results: a heat map over the photograph, and a panel with the verdict and the times.
#pragma once

#include <string>
#include <vector>

#include "preprocess.hpp"

namespace adc {

/// 256 colours from blue (0) over green and yellow to red (255).
[[nodiscard]] const std::array<std::array<unsigned char, 3>, 256>& heat_colours();

/// Blends the colours of `map` (values 0 … 1, any size) half and half with the picture. The map
/// covers the part of the picture that the tensor saw.
[[nodiscard]] Image overlay(const Image& picture, View<float> map, const Placement& where);

/// The map alone in these colours, one pixel per element.
[[nodiscard]] Image heat_map(View<float> map);

/// The picture with three channels.
[[nodiscard]] Image to_colour(const Image& image);

/// Colours what mask `row` of [N, 1, H, W] (values 0 … 1, on the tensor's scale) covers.
void tint_mask(Image& image, View<float> masks, Index row, const Placement& where,
               const std::array<unsigned char, 3>& colour);

/// Text with its upper left corner at x, y and letters of 7 x `scale` pixels. draw_plain.cpp knows
/// capitals, digits and a few signs and leaves the rest blank; draw_opencv.cpp knows all of ASCII.
void draw_text(Image& image, int x, int y, const std::string& text, int scale,
               const std::array<unsigned char, 3>& colour);

struct Verdict {
  bool anomalous = false;
  double score = 0;
  double limit = 0;
  double preprocess_ms = 0;
  double inference_ms = 0;
  double postprocess_ms = 0;
};

/// The picture with a panel at its right: OK (green) or NG (red), score, threshold, times.
[[nodiscard]] Image with_panel(const Image& picture, const Verdict& verdict);

/// A frame around a detection.
void draw_box(Image& image, const float* box, const std::array<unsigned char, 3>& colour);

}  // namespace adc
