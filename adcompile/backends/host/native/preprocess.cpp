#include "preprocess.hpp"

#include <cmath>

namespace adc {

namespace {

struct Size {
  int height;
  int width;
};

/// n / 2 of a non-negative number, halves rounded to the even neighbour.
int half_even(int n) { return n / 2 + (n % 2 != 0 && n / 2 % 2 != 0 ? 1 : 0); }

int narrow(std::int64_t value) {
  require(value >= 1 && value <= 65536, "picture: a resized side out of range");
  return static_cast<int>(value);
}

Size inside(std::int64_t height, std::int64_t width, std::int64_t rows, std::int64_t columns) {
  if (rows * width <= columns * height) {  // the height is the tighter side
    return {narrow(rows), narrow(std::max<std::int64_t>(1, (2 * width * rows + height) / (2 * height)))};
  }
  return {narrow(std::max<std::int64_t>(1, (2 * height * columns + width) / (2 * width))),
          narrow(columns)};
}

Size shorter(std::int64_t height, std::int64_t width, std::int64_t target) {
  if (height <= width) return {narrow(target), narrow(target * width / height)};
  return {narrow(target * height / width), narrow(target)};
}

Size resized(int height, int width, const ImageInput& spec) {
  const std::string mode = spec.resize;
  const bool given = spec.resize_height > 0;
  if (mode == "none") return {height, width};
  if (mode == "stretch") {
    return given ? Size{spec.resize_height, spec.resize_width} : Size{spec.height, spec.width};
  }
  if (mode == "letterbox") {
    return inside(height, width, given ? spec.resize_height : spec.height,
                  given ? spec.resize_width : spec.width);
  }
  if (mode == "shorter") {
    const int target = given ? std::min(spec.resize_height, spec.resize_width)
                             : std::min(spec.height, spec.width);
    return shorter(height, width, target);
  }
  fail("unknown resize mode '" + mode + "'");
}

Image fit(Image pixels, const Placement& where, int pad) {
  if (where.resized_height == where.size_height && where.resized_width == where.size_width) {
    return pixels;
  }
  Image canvas = make_image(where.size_width, where.size_height, pixels.channels, "tensor");
  std::fill(canvas.pixels.begin(), canvas.pixels.end(), static_cast<unsigned char>(pad));
  const int from_y = std::max(-where.top, 0);
  const int from_x = std::max(-where.left, 0);
  const int to_y = std::max(where.top, 0);
  const int to_x = std::max(where.left, 0);
  const int rows = std::min(pixels.height - from_y, canvas.height - to_y);
  const int columns = std::min(pixels.width - from_x, canvas.width - to_x);
  for (int y = 0; y < rows; ++y) {
    copy_elements(pixels.at(from_y + y, from_x), Index{columns} * pixels.channels,
                  canvas.at(to_y + y, to_x));
  }
  return canvas;
}

/// The number that each byte of a channel becomes.
std::array<float, 256> lookup(const ImageInput& spec, std::size_t channel) {
  std::array<float, 256> table{};
  for (std::size_t v = 0; v < 256; ++v) {
    const float scaled = static_cast<float>(v) * spec.scale;
    const float centred = scaled - spec.mean[channel];
    table[v] = centred / spec.std[channel];
  }
  return table;
}

template <class T>
T converted(float value) {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    const float rounded = std::nearbyint(value);
    return static_cast<T>(rounded < 0.0f ? 0.0f : rounded > 255.0f ? 255.0f : rounded);
  } else {
    return T(value);
  }
}

template <class T>
void numbers(const Image& pixels, const ImageInput& spec, bool planar, T* out) {
  const auto channels = static_cast<std::size_t>(pixels.channels);
  const std::size_t count = pixels.pixels.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    const std::array<float, 256> table = lookup(spec, c);
    std::array<T, 256> final_table;
    for (std::size_t v = 0; v < 256; ++v) final_table[v] = converted<T>(table[v]);
    const unsigned char* from = pixels.pixels.data() + c;
    for (std::size_t i = 0; i < count; ++i) {
      out[planar ? c * count + i : i * channels + c] = final_table[from[i * channels]];
    }
  }
}

}  // namespace

void Placement::box_to_image(const float* box, float* out) const {
  const double sy = static_cast<double>(resized_height) / static_cast<double>(height);
  const double sx = static_cast<double>(resized_width) / static_cast<double>(width);
  const auto limit = [](double v, double top) { return std::min(std::max(v, 0.0), top); };
  for (int i = 0; i < 4; ++i) {
    const bool across = i % 2 == 0;
    const double moved = (static_cast<double>(box[i]) - (across ? left : top)) / (across ? sx : sy);
    out[i] = static_cast<float>(limit(moved, across ? width : height));
  }
}

Placement place(int height, int width, const ImageInput& spec) {
  const Size now = resized(height, width, spec);
  const int free_y = spec.height - now.height;
  const int free_x = spec.width - now.width;
  Placement p{height, width, now.height, now.width, 0, 0, spec.height, spec.width};
  const std::string mode = spec.resize;
  if (mode == "letterbox") {
    p.top = free_y >= 0 ? free_y / 2 : -((1 - free_y) / 2);
    p.left = free_x >= 0 ? free_x / 2 : -((1 - free_x) / 2);
    return p;
  }
  if (free_y > 0 || free_x > 0 || (mode == "none" && (free_y < 0 || free_x < 0))) {
    fail("a picture of " + std::to_string(width) + " x " + std::to_string(height) + " becomes " +
         std::to_string(now.width) + " x " + std::to_string(now.height) + ", the tensor holds " +
         std::to_string(spec.width) + " x " + std::to_string(spec.height));
  }
  p.top = -half_even(-free_y);
  p.left = -half_even(-free_x);
  return p;
}

Image to_channels(const Image& image, const ImageInput& spec) {
  const bool grey = std::string(spec.channels) == "gray";
  const bool reversed = std::string(spec.channels) == "bgr";
  const bool colour = image.channels == 3;
  if (grey ? !colour : colour && !reversed) return image;
  Image out = make_image(image.width, image.height, grey ? 1 : 3, "channels");
  const bool pil = std::string(spec.resample).rfind("pil", 0) == 0;
  const unsigned char* from = image.pixels.data();
  unsigned char* to = out.pixels.data();
  const std::size_t count = image.pixels.size() / static_cast<std::size_t>(image.channels);
  for (std::size_t i = 0; i < count; ++i, from += image.channels) {
    if (!grey) {
      for (int c = 0; c < 3; ++c) *to++ = from[colour ? 2 - c : 0];
    } else if (pil) {
      *to++ = static_cast<unsigned char>((19595 * from[0] + 38470 * from[1] + 7471 * from[2] +
                                          32768) >> 16);
    } else {
      *to++ = static_cast<unsigned char>((9798 * from[0] + 19235 * from[1] + 3735 * from[2] +
                                          16384) >> 15);
    }
  }
  return out;
}

Placement preprocess(const Image& image, const ImageInput& spec, Array& out) {
  const Placement where = place(image.height, image.width, spec);
  Image pixels = to_channels(image, spec);
  pixels = resample(pixels, where.resized_height, where.resized_width, spec.resample);
  pixels = fit(std::move(pixels), where, spec.pad_value);
  require(spec.mean.size() == static_cast<std::size_t>(pixels.channels) &&
              spec.std.size() == spec.mean.size(),
          "contract: mean and std do not fit the channels");
  const std::string layout = spec.layout;
  const bool planar = layout == "nchw" || layout == "chw";
  Shape shape;
  if (layout[0] == 'n') shape.push_back(1);
  if (planar) shape.push_back(pixels.channels);
  shape.push_back(pixels.height);
  shape.push_back(pixels.width);
  if (!planar) shape.push_back(pixels.channels);
  const std::string dtype = spec.dtype;
  out.shape = shape;
  out.dtype = dtype == "float32" ? DType::kFloat32
              : dtype == "float16" ? DType::kFloat16
                                   : DType::kUint8;
  std::byte* memory = out.memory.reserve(out.view().bytes());
  if (out.dtype == DType::kFloat32) {
    numbers(pixels, spec, planar, reinterpret_cast<float*>(memory));
  } else if (out.dtype == DType::kFloat16) {
    numbers(pixels, spec, planar, reinterpret_cast<Half*>(memory));
  } else {
    numbers(pixels, spec, planar, reinterpret_cast<std::uint8_t*>(memory));
  }
  return where;
}

}  // namespace adc
