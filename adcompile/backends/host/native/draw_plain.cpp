// Text and frames without a library: dots of a built-in font, filled rectangles.
#include "draw.hpp"
#include "draw_font.hpp"

namespace adc {

namespace {

using Colour = std::array<unsigned char, 3>;

void fill(Image& image, int x0, int y0, int x1, int y1, const Colour& colour) {
  for (int y = std::max(y0, 0); y < std::min(y1, image.height); ++y) {
    for (int x = std::max(x0, 0); x < std::min(x1, image.width); ++x) {
      std::copy(colour.begin(), colour.end(), image.at(y, x));
    }
  }
}

}  // namespace

void draw_text(Image& image, int x, int y, const std::string& text, int scale,
               const Colour& colour) {
  for (const char raw : text) {
    const char c = static_cast<char>(raw >= 'a' && raw <= 'z' ? raw - 'a' + 'A' : raw);
    for (const Glyph& glyph : kFont) {
      if (glyph.character != c) continue;
      for (int row = 0; row < 7; ++row) {
        for (int dot = 0; dot < 5; ++dot) {
          if ((glyph.rows[static_cast<std::size_t>(row)] >> (4 - dot) & 1) == 0) continue;
          fill(image, x + dot * scale, y + row * scale, x + (dot + 1) * scale,
               y + (row + 1) * scale, colour);
        }
      }
    }
    x += 6 * scale;
  }
}

void draw_box(Image& image, const float* box, const Colour& colour) {
  const auto pixel = [](float v) { return static_cast<int>(std::min(std::max(v, 0.0f), 65536.0f)); };
  const int x0 = pixel(box[0]);
  const int y0 = pixel(box[1]);
  const int x1 = std::max(pixel(box[2]), x0 + 1);
  const int y1 = std::max(pixel(box[3]), y0 + 1);
  const int line = std::max(1, image.height / 300);
  fill(image, x0, y0, x1, y0 + line, colour);
  fill(image, x0, y1 - line, x1, y1, colour);
  fill(image, x0, y0, x0 + line, y1, colour);
  fill(image, x1 - line, y0, x1, y1, colour);
}

}  // namespace adc
