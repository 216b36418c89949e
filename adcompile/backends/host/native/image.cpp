#include "image.hpp"

#include <cmath>
#include <filesystem>
#include <memory>

#include "npy.hpp"

namespace adc {

namespace {

constexpr int kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
constexpr std::size_t kMaxFile = std::size_t{1} << 29;

[[noreturn]] void damaged(const std::string& where, const char* why) {
  fail(where + ": damaged picture: " + why);
}

/// Numbers of a PNM header, with comments.
class PnmHeader {
 public:
  PnmHeader(const unsigned char* data, std::size_t size, const std::string& where)
      : data_(data), size_(size), where_(where) {}

  int number() {
    skip();
    std::int64_t value = 0;
    const std::size_t first = at_;
    while (at_ < size_ && data_[at_] >= '0' && data_[at_] <= '9') {
      value = value * 10 + (data_[at_++] - '0');
      if (value > (1 << 20)) damaged(where_, "number too large");
    }
    if (at_ == first) damaged(where_, "number expected");
    return static_cast<int>(value);
  }
  /// Offset of the samples: one white-space character after the last number.
  std::size_t end() {
    if (at_ >= size_) damaged(where_, "too short");
    return at_ + 1;
  }

  std::size_t at_ = 2;

 private:
  void skip() {
    while (at_ < size_) {
      const unsigned char c = data_[at_];
      if (c == '#') {
        while (at_ < size_ && data_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
        ++at_;
      } else {
        return;
      }
    }
  }

  const unsigned char* data_;
  std::size_t size_;
  const std::string& where_;
};

/// A sample of range 0 … top as 8 bits. Wide grey samples are first brought to 16 bits, of which
/// the high byte counts.
unsigned char to_byte(int value, int top, bool grey) {
  if (top == 255) return static_cast<unsigned char>(value);
  const double share = static_cast<double>(std::min(value, top)) / static_cast<double>(top);
  if (grey && top > 255) {
    return static_cast<unsigned char>(static_cast<int>(std::nearbyint(share * 65535.0)) >> 8);
  }
  return static_cast<unsigned char>(std::nearbyint(share * 255.0));
}

Image decode_pnm(const unsigned char* data, std::size_t size, const std::string& where) {
  const bool grey = data[1] == '5';
  PnmHeader header(data, size, where);
  const int width = header.number();
  const int height = header.number();
  const int top = header.number();
  const std::size_t start = header.end();
  if (top < 1 || top > 65535) damaged(where, "sample range");
  Image image = make_image(width, height, grey ? 1 : 3, where);
  const std::size_t wide = top > 255 ? 2 : 1;
  if (image.pixels.size() * wide > size - start) damaged(where, "too short");
  const unsigned char* from = data + start;
  for (unsigned char& pixel : image.pixels) {
    const int value = wide == 2 ? from[0] << 8 | from[1] : from[0];
    pixel = to_byte(value, top, grey);
    from += wide;
  }
  return image;
}

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
  Image image = make_image(width, height, 3, where);
  const std::size_t colours = bits == 8 ? (f.u32(46) != 0 ? f.u32(46) : 256) : 0;
  if (colours > 256) damaged(where, "BMP palette");
  const std::size_t palette = 14 + header;
  const auto bytes = static_cast<std::size_t>(bits) / 8;
  const std::size_t row = (static_cast<std::size_t>(width) * bytes + 3) / 4 * 4;
  if (start > size || row * static_cast<std::size_t>(height) > size - start ||
      palette + 4 * colours > size) {
    damaged(where, "too short");
  }
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

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

void put(std::FILE* file, const void* data, std::size_t size, const std::string& path) {
  if (std::fwrite(data, 1, size, file) != size) fail(path + ": cannot write");
}

void write_bmp(const std::string& path, const Image& image) {
  const File file(std::fopen(path.c_str(), "wb"));
  if (!file) fail(path + ": cannot write");
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
  put(file.get(), h.data(), h.size(), path);
  std::vector<unsigned char> line(row, 0);
  for (int y = image.height - 1; y >= 0; --y) {
    for (int x = 0; x < image.width; ++x) {
      const unsigned char* from = image.at(y, x);
      for (std::size_t c = 0; c < 3; ++c) {
        line[static_cast<std::size_t>(x) * 3 + c] = from[image.channels == 3 ? 2 - c : 0];
      }
    }
    put(file.get(), line.data(), line.size(), path);
  }
}

void write_pnm(const std::string& path, const Image& image) {
  const File file(std::fopen(path.c_str(), "wb"));
  if (!file) fail(path + ": cannot write");
  const std::string header = std::string(image.channels == 1 ? "P5\n" : "P6\n") +
                             std::to_string(image.width) + " " + std::to_string(image.height) +
                             "\n255\n";
  put(file.get(), header.data(), header.size(), path);
  put(file.get(), image.pixels.data(), image.pixels.size(), path);
}

std::string lower_suffix(const std::string& path) {
  std::string suffix = std::filesystem::path(path).extension().string();
  for (char& c : suffix) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return suffix;
}

}  // namespace

Image make_image(int width, int height, int channels, const std::string& where) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide ||
      std::int64_t{width} * height > kMaxPixels) {
    fail(where + ": a picture of " + std::to_string(width) + " x " + std::to_string(height) +
         " pixels cannot be used");
  }
  Image image{width, height, channels, {}};
  image.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                      static_cast<std::size_t>(channels));
  return image;
}

Image decode_image(const unsigned char* data, std::size_t size, const std::string& where) {
  const auto starts = [&](const char* magic, std::size_t n) {
    return size >= n && std::memcmp(data, magic, n) == 0;
  };
  if (starts("P5", 2) || starts("P6", 2)) return decode_pnm(data, size, where);
  if (starts("BM", 2)) return decode_bmp(data, size, where);
  if (starts("\x89PNG\r\n\x1a\n", 8)) return decode_png(data, size, where);
  if (starts("\xff\xd8\xff", 3)) return decode_jpeg(data, size, where);
  fail(where + ": not a picture (PNM, BMP, PNG, JPEG)");
}

Image read_image(const std::string& path) {
  const std::vector<unsigned char> data = read_file(path, kMaxFile);
  return decode_image(data.data(), data.size(), path);
}

bool read_frame(std::FILE* stream, Image& frame) {
  const std::string where = "frame";
  // The header is read byte by byte: what follows it belongs to the picture.
  std::vector<unsigned char> bytes;
  int fields = 0;
  bool in_number = false;
  bool comment = false;
  while (fields < 4) {
    const int c = std::fgetc(stream);
    if (c == EOF) {
      if (bytes.empty()) return false;
      damaged(where, "stream ends in a header");
    }
    if (bytes.size() > 256) damaged(where, "header too long");
    bytes.push_back(static_cast<unsigned char>(c));
    if (bytes.size() == 2 && (bytes[0] != 'P' || (c != '5' && c != '6'))) {
      fail("frame: not a binary PGM or PPM picture");
    }
    if (comment) {
      comment = c != '\n';
      continue;
    }
    const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    comment = c == '#';
    if (blank && in_number) ++fields;
    in_number = !blank && !comment;
  }
  PnmHeader header(bytes.data(), bytes.size(), where);
  const int width = header.number();
  const int height = header.number();
  const int top = header.number();
  const int channels = bytes[1] == '5' ? 1 : 3;
  const std::size_t size = make_image(width, height, channels, where).pixels.size();
  const std::size_t start = bytes.size();
  bytes.resize(start + size * (top > 255 ? 2 : 1));
  if (std::fread(bytes.data() + start, 1, bytes.size() - start, stream) != bytes.size() - start) {
    damaged(where, "stream ends in a picture");
  }
  frame = decode_pnm(bytes.data(), bytes.size(), where);
  return true;
}

void write_image(const std::string& path, const Image& image) {
  const std::string suffix = lower_suffix(path);
  if (suffix == ".png") return write_png(path, image);
  if (suffix == ".bmp") return write_bmp(path, image);
  write_pnm(path, image);
}

std::vector<std::string> find_images(const std::string& folder) {
  namespace fs = std::filesystem;
  constexpr std::array<const char*, 7> kSuffixes{".png", ".jpg", ".jpeg", ".bmp",
                                                 ".ppm", ".pgm", ".pnm"};
  std::error_code error;
  std::vector<std::string> found;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error)) {
    const std::string suffix = lower_suffix(i->path().string());
    const bool known = std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
    if (known && i->is_regular_file(error)) found.push_back(i->path().filename().string());
  }
  if (error) fail(folder + ": cannot list the folder: " + error.message());
  if (found.empty()) fail(folder + ": no picture in the folder");
  std::sort(found.begin(), found.end());
  return found;
}

#if !defined(ADC_WITH_PNG)
Image decode_png(const unsigned char*, std::size_t, const std::string& where) {
  fail(where + ": this program was built without libpng");
}
void write_png(const std::string& path, const Image&) {
  fail(path + ": this program was built without libpng; use .bmp or .ppm");
}
#endif

#if !defined(ADC_WITH_JPEG)
Image decode_jpeg(const unsigned char*, std::size_t, const std::string& where) {
  fail(where + ": this program was built without libjpeg");
}
#endif

}  // namespace adc
