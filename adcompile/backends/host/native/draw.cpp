#include "draw.hpp"

#include <cmath>
#include <cstdio>

namespace adc {

namespace {

using Colour = std::array<unsigned char, 3>;

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

/// One H x W plane of a stack of maps or masks that lies over the picture's tensor.
struct Plane {
  const float* data;
  Index height;
  Index width;

  Plane(View<float> stack, Index row) {
    require(stack.rank() >= 2, "a map is not two-dimensional");
    height = stack.dim(stack.rank() - 2);
    width = stack.dim(stack.rank() - 1);
    require(height > 0 && width > 0 && (row + 1) * height * width <= stack.size(),
            "a map is missing");
    data = stack.data() + row * height * width;
  }

  /// Value at a point of the plane, bilinear.
  [[nodiscard]] float sample(double y, double x) const {
    y = std::min(std::max(y, 0.0), static_cast<double>(height - 1));
    x = std::min(std::max(x, 0.0), static_cast<double>(width - 1));
    const auto y0 = static_cast<Index>(y);
    const auto x0 = static_cast<Index>(x);
    const Index y1 = std::min(y0 + 1, height - 1);
    const Index x1 = std::min(x0 + 1, width - 1);
    const auto fy = static_cast<float>(y - static_cast<double>(y0));
    const auto fx = static_cast<float>(x - static_cast<double>(x0));
    const float top = data[y0 * width + x0] * (1 - fx) + data[y0 * width + x1] * fx;
    const float bottom = data[y1 * width + x0] * (1 - fx) + data[y1 * width + x1] * fx;
    return top * (1 - fy) + bottom * fy;
  }

  /// Value under a pixel of the picture (pixel centres on pixel centres); 0 where the tensor saw
  /// nothing of it.
  [[nodiscard]] float under(const Placement& where, int y, int x) const {
    const double sy = static_cast<double>(where.resized_height) / where.height;
    const double sx = static_cast<double>(where.resized_width) / where.width;
    const double ty = ((y + 0.5) * sy + where.top) / where.size_height;
    const double tx = ((x + 0.5) * sx + where.left) / where.size_width;
    if (!(ty >= 0 && ty <= 1 && tx >= 0 && tx <= 1)) return 0.0f;
    return sample(ty * static_cast<double>(height) - 0.5, tx * static_cast<double>(width) - 0.5);
  }
};

/// Half the pixel, half the colour.
void blend(unsigned char* pixel, const Colour& colour) {
  for (std::size_t c = 0; c < 3; ++c) {
    pixel[c] = static_cast<unsigned char>((pixel[c] + colour[c] + 1) / 2);
  }
}

/// The colour of a value. A NaN is shown as the worst value: it must not look normal.
const Colour& heat_colour(float value) {
  const float shown = value != value ? 1.0f : std::min(std::max(value, 0.0f), 1.0f);
  return heat_colours()[static_cast<std::size_t>(shown * 255.0f)];
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

Image to_colour(const Image& image) {
  if (image.channels == 3) return image;
  Image out = make_image(image.width, image.height, 3, "drawing");
  for (std::size_t i = 0; i < out.pixels.size(); ++i) out.pixels[i] = image.pixels[i / 3];
  return out;
}

Image heat_map(View<float> map) {
  const Plane plane(map, 0);
  Image out = make_image(static_cast<int>(plane.width), static_cast<int>(plane.height), 3, "drawing");
  for (Index i = 0; i < plane.height * plane.width; ++i) {
    const Colour& colour = heat_colour(plane.data[i]);
    std::copy(colour.begin(), colour.end(), out.pixels.data() + 3 * i);
  }
  return out;
}

Image overlay(const Image& picture, View<float> map, const Placement& where) {
  const Plane plane(map, 0);
  Image out = to_colour(picture);
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      blend(out.at(y, x), heat_colour(plane.under(where, y, x)));
    }
  }
  return out;
}

void tint_mask(Image& image, View<float> masks, Index row, const Placement& where,
               const Colour& colour) {
  const Plane plane(masks, row);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      if (plane.under(where, y, x) > 0.5f) blend(image.at(y, x), colour);
    }
  }
}

Image with_panel(const Image& picture, const Verdict& verdict) {
  const int scale = std::max(1, picture.height / 200);
  const int panel = 6 * scale * 24;
  Image out = make_image(picture.width + panel, picture.height, 3, "drawing");
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

}  // namespace adc
