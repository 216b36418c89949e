// Picture files: PNM and BMP always, PNG and JPEG when the program was built with those libraries,
// more kinds with OpenCV.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "tensor.hpp"

namespace adc {

/// 8-bit pixels, row by row, 1 (grey) or 3 (RGB) channels.
struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<unsigned char> pixels;

  [[nodiscard]] const unsigned char* at(int y, int x) const {
    return pixels.data() + (static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
                            static_cast<std::size_t>(x)) *
                               static_cast<std::size_t>(channels);
  }
  [[nodiscard]] unsigned char* at(int y, int x) {
    return const_cast<unsigned char*>(static_cast<const Image&>(*this).at(y, x));
  }
};

/// Fails unless a side has 1 … 65536 and the whole at most 2^26 pixels.
void check_picture_size(int width, int height, const std::string& where);
/// A black picture of a checked size.
[[nodiscard]] Image make_image(int width, int height, int channels, const std::string& where);

/// Decodes a file by its content. Transparency is dropped, palettes become RGB, 16-bit samples
/// become their high byte, an EXIF orientation is ignored.
[[nodiscard]] Image read_image(const std::string& path);
/// The same from memory; `where` names the source in errors.
[[nodiscard]] Image decode_image(const unsigned char* data, std::size_t size,
                                 const std::string& where);

/// Reads the next binary PGM or PPM picture of a stream (a camera, `ffmpeg -f image2pipe`).
/// Returns false at the end of the stream.
[[nodiscard]] bool read_frame(std::FILE* stream, Image& frame);

/// Writes by suffix: .bmp, .ppm, .pgm, .pnm, .png with libpng; with OpenCV what it knows.
void write_image(const std::string& path, const Image& image);

/// The best suffix that this program can write losslessly: ".png", else ".bmp".
[[nodiscard]] const char* picture_suffix();

/// Names of picture files directly inside a folder, sorted; fails when there is none.
[[nodiscard]] std::vector<std::string> find_images(const std::string& folder);

}  // namespace adc
