#include "image.hpp"

#include <filesystem>

#include "image_format.hpp"
#include "npy.hpp"

namespace adc {

namespace {

constexpr int kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
constexpr std::size_t kMaxFile = std::size_t{1} << 29;

std::string lower_suffix(const std::string& path) {
  std::string suffix = std::filesystem::path(path).extension().string();
  for (char& c : suffix) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return suffix;
}

}  // namespace

void check_picture_size(int width, int height, const std::string& where) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide ||
      std::int64_t{width} * height > kMaxPixels) {
    fail(where + ": a picture of " + std::to_string(width) + " x " + std::to_string(height) +
         " pixels cannot be used");
  }
}

Image make_image(int width, int height, int channels, const std::string& where) {
  check_picture_size(width, height, where);
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
  return decode_other(data, size, where, "not a picture (PGM, PPM, BMP, PNG, JPEG)");
}

Image read_image(const std::string& path) {
  const std::vector<unsigned char> data = read_file(path, kMaxFile);
  return decode_image(data.data(), data.size(), path);
}

void write_image(const std::string& path, const Image& image) {
  const std::string suffix = lower_suffix(path);
  if (suffix == ".png") return write_png(path, image);
  if (suffix == ".bmp") return write_bmp(path, image);
  if (suffix == ".ppm" || suffix == ".pgm" || suffix == ".pnm") return write_pnm(path, image);
  write_other(path, image, "unknown kind of picture (.png, .bmp, .ppm)");
}

const char* picture_suffix() {
#if defined(ADC_WITH_PNG) || defined(ADC_WITH_OPENCV)
  return ".png";
#else
  return ".bmp";
#endif
}

std::vector<std::string> find_images(const std::string& folder) {
  namespace fs = std::filesystem;
#if defined(ADC_WITH_OPENCV)
  constexpr std::array kSuffixes{".png", ".jpg", ".jpeg", ".bmp",  ".ppm",
                                 ".pgm", ".pnm", ".tif",  ".tiff", ".webp"};
#else
  constexpr std::array kSuffixes{".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm"};
#endif
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
Image decode_png(const unsigned char* data, std::size_t size, const std::string& where) {
  return decode_other(data, size, where, "this program was built without libpng");
}
void write_png(const std::string& path, const Image& image) {
  write_other(path, image, "this program was built without libpng; use .bmp or .ppm");
}
#endif

#if !defined(ADC_WITH_JPEG)
Image decode_jpeg(const unsigned char* data, std::size_t size, const std::string& where) {
  return decode_other(data, size, where, "this program was built without libjpeg");
}
#endif

#if !defined(ADC_WITH_OPENCV)
Image decode_other(const unsigned char*, std::size_t, const std::string& where, const char* why) {
  fail(where + ": " + why);
}
void write_other(const std::string& path, const Image&, const char* why) {
  fail(path + ": " + why);
}
#endif

}  // namespace adc
