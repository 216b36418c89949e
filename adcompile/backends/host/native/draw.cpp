#include "draw.hpp"

#include <cmath>
#include <cstdio>

#include "draw_font.hpp"

namespace adc {

namespace {

using Colour = std::array<unsigned char, 3>;

constexpr Colour kBlack{0, 0, 0};
constexpr Colour kWhite{255, 255, 255};
constexpr Colour kGreen{0, 200, 0};
constexpr Colour kRed{220, 0, 0};

/// Full saturation and brightness; hue 0 … 1.
Colour from_hue(double hue) {
  const double h = hue * 6.0;
  const auto part = [h](double shift) {
    const double k = std::fmod(shift + h, 6.0);
    const double v = 1.0 - std::max(0.0, std::min({k, 4.0 - k, 1.0}));
    return static_cast<unsigned char>(std::nearbyint(v * 255.0));
  };
  return {part(5.0), part(3.0), part(1.0)};
}

Image to_colour(const Image& image) {
  if (image.channels == 3) return image;
  Image out = make_image(image.width, image.height, 3, "drawing");
  for (std::size_t i = 0; i < out.pixels.size(); ++i) out.pixels[i] = image.pixels[i / 3];
  return out;
}

void fill(Image& image, int x0, int y0, int x1, int y1, const Colour& colour) {
  for (int y = std::max(y0, 0); y < std::min(y1, image.height); ++y) {
    for (int x = std::max(x0, 0); x < std::min(x1, image.width); ++x) {
      std::copy(colour.begin(), colour.end(), image.at(y, x));
    }
  }
}

/// Value of the map at a point of it, bilinear.
float sample(View<float> map, Index height, Index width, double y, double x) {
  y = std::min(std::max(y, 0.0), static_cast<double>(height - 1));
  x = std::min(std::max(x, 0.0), static_cast<double>(width - 1));
  const auto y0 = static_cast<Index>(y);
  const auto x0 = static_cast<Index>(x);
  const Index y1 = std::min(y0 + 1, height - 1);
  const Index x1 = std::min(x0 + 1, width - 1);
  const auto fy = static_cast<float>(y - static_cast<double>(y0));
  const auto fx = static_cast<float>(x - static_cast<double>(x0));
  const float top = map[y0 * width + x0] * (1 - fx) + map[y0 * width + x1] * fx;
  const float bottom = map[y1 * width + x0] * (1 - fx) + map[y1 * width + x1] * fx;
  return top * (1 - fy) + bottom * fy;
}

std::string fixed(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

}  // namespace

const std::array<Colour, 256>& heat_colours() {
  // Hue 2/3 (blue) down to 0 (red): half of the steps stay in the blues, where normal parts are.
  static const std::array<Colour, 256> table = [] {
    std::array<Colour, 256> t{};
    for (std::size_t i = 0; i < 256; ++i) {
      const auto step = static_cast<double>(i);
      double hue = 0;
      if (i < 128) {
        hue = 2.0 / 3.0 - step / 127.0 * (1.0 / 6.0);
      } else if (i < 153) {
        hue = 1.0 / 3.0 - (step - 128.0) / 24.0 * (1.0 / 6.0);
      } else {
        hue = (1.0 - (step - 153.0) / 102.0) / 6.0;
      }
      t[i] = from_hue(hue);
    }
    return t;
  }();
  return table;
}

Image overlay(const Image& picture, View<float> map, const Placement& where) {
  require(map.rank() >= 2, "the anomaly map is not two-dimensional");
  const Index height = map.dim(map.rank() - 2);
  const Index width = map.dim(map.rank() - 1);
  require(map.size() == height * width && map.size() > 0, "one anomaly map expected");
  Image out = to_colour(picture);
  const double sy = static_cast<double>(where.resized_height) / where.height;
  const double sx = static_cast<double>(where.resized_width) / where.width;
  for (int y = 0; y < out.height; ++y) {
    // Picture to tensor to map, pixel centres to pixel centres.
    const double ty = ((y + 0.5) * sy + where.top) / where.size_height;
    for (int x = 0; x < out.width; ++x) {
      const double tx = ((x + 0.5) * sx + where.left) / where.size_width;
      const bool seen = ty >= 0 && ty <= 1 && tx >= 0 && tx <= 1;
      const float value = seen ? sample(map, height, width, ty * static_cast<double>(height) - 0.5,
                                        tx * static_cast<double>(width) - 0.5)
                               : 0.0f;
      // A NaN is shown as the worst value: it must not look normal.
      const float shown = value != value ? 1.0f : std::min(std::max(value, 0.0f), 1.0f);
      const Colour& tint = heat_colours()[static_cast<std::size_t>(shown * 255.0f)];
      unsigned char* pixel = out.at(y, x);
      for (std::size_t c = 0; c < 3; ++c) {
        pixel[c] = static_cast<unsigned char>((pixel[c] + tint[c] + 1) / 2);
      }
    }
  }
  return out;
}

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

Image with_panel(const Image& picture, const Verdict& verdict) {
  const int scale = std::max(1, picture.height / 200);
  const int panel = 6 * scale * 24;
  Image out = make_image(picture.width + panel, picture.height, 3, "drawing");
  fill(out, 0, 0, out.width, out.height, kBlack);
  const Image colour = to_colour(picture);
  for (int y = 0; y < picture.height; ++y) {
    copy_elements(colour.at(y, 0), Index{3} * picture.width, out.at(y, 0));
  }
  const int x = picture.width + 4 * scale;
  const Colour& state = verdict.anomalous ? kRed : kGreen;
  draw_text(out, x, 6 * scale, verdict.anomalous ? "NG" : "OK", 4 * scale, state);
  int y = 44 * scale;
  const auto line = [&](const std::string& text, const Colour& c) {
    draw_text(out, x, y, text, scale, c);
    y += 10 * scale;
  };
  line("SCORE: " + fixed(verdict.score, 2), state);
  line("NG THRESHOLD: " + fixed(verdict.limit, 2), kWhite);
  line("PRE:  " + fixed(verdict.preprocess_ms, 1) + " MS", kWhite);
  line("INF:  " + fixed(verdict.inference_ms, 1) + " MS", kWhite);
  line("POST: " + fixed(verdict.postprocess_ms, 1) + " MS", kWhite);
  return out;
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
