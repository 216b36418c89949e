// From a decoded picture to the input tensor, as the contract says. Equal bit for bit, in float32,
// to adcompile/runtime/preprocess.py, where the steps are defined.
#pragma once

#include "bundle_info.hpp"
#include "image.hpp"
#include "npy.hpp"

namespace adc {

/// Where a picture lies in the tensor: it is resized to `resized` and its upper left corner put at
/// `offset` (negative where a crop cuts it off). All in pixels.
struct Placement {
  int height = 0, width = 0;                // of the picture
  int resized_height = 0, resized_width = 0;
  int top = 0, left = 0;                    // offset
  int size_height = 0, size_width = 0;      // of the tensor

  /// A box x1 y1 x2 y2 of the tensor in pixels of the picture, cut off at its border.
  void box_to_image(const float* box, float* out) const;
};

[[nodiscard]] Placement place(int height, int width, const ImageInput& spec);

/// Resizes 8-bit pixels; `convention` is pil_bilinear, pil_nearest, cv_bilinear or cv_nearest.
[[nodiscard]] Image resample(const Image& image, int height, int width,
                             const std::string& convention);

/// Grey, RGB or BGR pixels, as the contract wants them.
[[nodiscard]] Image to_channels(const Image& image, const ImageInput& spec);

/// Writes the tensor for `image` into `out`, whose memory is reused from call to call.
Placement preprocess(const Image& image, const ImageInput& spec, Array& out);

}  // namespace adc
