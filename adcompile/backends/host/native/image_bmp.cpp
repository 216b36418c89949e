// Uncompressed BMP with 8 (palette), 24 or 32 bits.
#include <limits>

#include "image_format.hpp"

namespace adc {

namespace {

/// Little-endian fields of a BMP.
class Fields {
 public:
  Fields(const unsigned char* data, std::size_t size, const std::string& where)
      : data_(data), size_(size), where_(where) {}
  [[nodiscard]] std::uint32_t u32(std::size_t at) const {
    return std::uint32_t{u16(at)} | std::uint32_t{u16(at + 2)} << 16;
  }
  [[nodiscard]] std::uint16_t u16(std::size_t at) const {
    if (at + 2 > size_) damaged(where_, "too short");
    return static_cast<std::uint16_t>(data_[at] | data_[at + 1] << 8);
  }

 private:
  const unsigned char* data_;
  std::size_t size_;
  const std::string& where_;
};

}  // namespace

Image decode_bmp(const unsigned char* data, std::size_t size, const std::string& where) {
  const Fields f(data, size, where);
  const std::size_t start = f.u32(10);
  const std::size_t header = f.u32(14);
  if (header < 40 || header > 124) damaged(where, "BMP header");
  const auto width = static_cast<std::int32_t>(f.u32(18));
  const auto signed_height = static_cast<std::int32_t>(f.u32(22));
  const int bits = f.u16(28);
  const std::uint32_t packing = f.u32(30);
  if (signed_height == std::numeric_limits<std::int32_t>::min()) damaged(where, "BMP height");
  const int height = signed_height < 0 ? -signed_height : signed_height;
  if ((bits != 8 && bits != 24 && bits != 32) || packing != 0) {
    fail(where + ": only uncompressed BMP with 8, 24 or 32 bits");
  }
  check_picture_size(width, height, where);
  const std::size_t colours = bits == 8 ? (f.u32(46) != 0 ? f.u32(46) : 256) : 0;
  if (colours > 256) damaged(where, "BMP palette");
  const std::size_t palette = 14 + header;
  const auto bytes = static_cast<std::size_t>(bits) / 8;
  const std::size_t row = (static_cast<std::size_t>(width) * bytes + 3) / 4 * 4;
  if (start > size || row * static_cast<std::size_t>(height) > size - start ||
      palette + 4 * colours > size) {
    damaged(where, "too short");
  }
  Image image = make_image(width, height, 3, where);
  bool grey = bits == 8;
  for (int y = 0; y < height; ++y) {
    const int source = signed_height < 0 ? y : height - 1 - y;
    const unsigned char* from = data + start + row * static_cast<std::size_t>(source);
    for (int x = 0; x < width; ++x, from += bytes) {
      const unsigned char* bgr = from;
      if (bits == 8) {
        if (*from >= colours) damaged(where, "BMP colour number");
        bgr = data + palette + std::size_t{4} * *from;
        grey = grey && bgr[0] == *from && bgr[1] == *from && bgr[2] == *from;
      }
      unsigned char* to = image.at(y, x);
      to[0] = bgr[2];
      to[1] = bgr[1];
      to[2] = bgr[0];
    }
  }
  if (!grey) return image;
  Image plain = make_image(width, height, 1, where);
  for (std::size_t i = 0; i < plain.pixels.size(); ++i) plain.pixels[i] = image.pixels[3 * i];
  return plain;
}


void write_bmp(const std::string& path, const Image& image) {
  OutputFile file(path);
  const auto width = static_cast<std::size_t>(image.width);
  const std::size_t row = (width * 3 + 3) / 4 * 4;
  const std::size_t total = 54 + row * static_cast<std::size_t>(image.height);
  std::array<unsigned char, 54> h{};
  const auto set = [&h](std::size_t at, std::size_t value) {
    for (std::size_t i = 0; i < 4; ++i) h[at + i] = static_cast<unsigned char>(value >> (8 * i));
  };
  h[0] = 'B';
  h[1] = 'M';
  set(2, total);
  set(10, 54);
  set(14, 40);
  set(18, width);
  set(22, static_cast<std::size_t>(image.height));
  h[26] = 1;
  h[28] = 24;
  set(34, total - 54);
  file.put(h.data(), h.size());
  std::vector<unsigned char> line(row, 0);
  for (int y = image.height - 1; y >= 0; --y) {
    for (int x = 0; x < image.width; ++x) {
      const unsigned char* from = image.at(y, x);
      for (std::size_t c = 0; c < 3; ++c) {
        line[static_cast<std::size_t>(x) * 3 + c] = from[image.channels == 3 ? 2 - c : 0];
      }
    }
    file.put(line.data(), line.size());
  }
  file.finish();
}

}  // namespace adc
