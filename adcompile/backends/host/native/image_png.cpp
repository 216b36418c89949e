// PNG through libpng. Its errors jump; everything with a destructor lives outside the jump.
#include <png.h>

#include <csetjmp>

#include "image_format.hpp"

namespace adc {

namespace {

struct Input {
  const unsigned char* data;
  std::size_t left;
};

void read_bytes(png_structp png, png_bytep to, png_size_t count) {
  auto* in = static_cast<Input*>(png_get_io_ptr(png));
  if (count > in->left) png_error(png, "too short");
  std::memcpy(to, in->data, count);
  in->data += count;
  in->left -= count;
}

void keep_error(png_structp png, png_const_charp text) {
  auto* to = static_cast<std::string*>(png_get_error_ptr(png));
  try {
    *to = text;
  } catch (...) {  // out of memory: the sentence is lost, the failure is not
  }
  png_longjmp(png, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

struct Writer {
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~Writer() { png_destroy_write_struct(&png, &info); }
};

/// Deflate makes at most 258 bytes of two bits, 1032 : 1;.
constexpr std::uint64_t kHighestRatio = 1032;

/// Up to the point where size and channels are known. False: an error was kept.
bool open_picture(Reader& r, std::size_t file_size, int& width, int& height, int& channels) {
  if (setjmp(png_jmpbuf(r.png)) != 0) return false;
  png_read_info(r.png, r.info);
  const std::uint64_t packed_row = std::uint64_t{png_get_rowbytes(r.png, r.info)} + 1;
  if (packed_row * png_get_image_height(r.png, r.info) > kHighestRatio * file_size) {
    png_error(r.png, "more pixels than a file of this size can hold");
  }
  png_set_palette_to_rgb(r.png);
  png_set_expand_gray_1_2_4_to_8(r.png);
  png_set_strip_16(r.png);
  png_set_strip_alpha(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  width = static_cast<int>(png_get_image_width(r.png, r.info));
  height = static_cast<int>(png_get_image_height(r.png, r.info));
  channels = png_get_channels(r.png, r.info);
  return true;
}

bool read_rows(Reader& r, png_bytepp rows) {
  if (setjmp(png_jmpbuf(r.png)) != 0) return false;
  png_read_image(r.png, rows);
  return true;
}

bool write_rows(Writer& w, std::FILE* file, const Image& image, png_bytepp rows) {
  if (setjmp(png_jmpbuf(w.png)) != 0) return false;
  png_init_io(w.png, file);
  png_set_IHDR(w.png, w.info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), 8,
               image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(w.png, w.info);
  png_write_image(w.png, rows);
  png_write_end(w.png, nullptr);
  return true;
}

std::vector<png_bytep> row_pointers(Image& image) {
  std::vector<png_bytep> rows;
  for (int y = 0; y < image.height; ++y) rows.push_back(image.at(y, 0));
  return rows;
}

}  // namespace

Image decode_png(const unsigned char* data, std::size_t size, const std::string& where) {
  std::string why = "out of memory";
  Reader r;
  r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &why, keep_error, ignore_warning);
  if (r.png != nullptr) r.info = png_create_info_struct(r.png);
  if (r.info == nullptr) damaged(where, why);
  png_set_user_limits(r.png, 1 << 16, 1 << 16);
  Input input{data, size};
  png_set_read_fn(r.png, &input, read_bytes);
  int width = 0;
  int height = 0;
  int channels = 0;
  if (!open_picture(r, size, width, height, channels)) damaged(where, why);
  if (channels != 1 && channels != 3) damaged(where, "channels");
  Image image = make_image(width, height, channels, where);
  std::vector<png_bytep> rows = row_pointers(image);
  if (!read_rows(r, rows.data())) damaged(where, why);
  return image;
}

void write_png(const std::string& path, const Image& image) {
  OutputFile file(path);
  std::string why = "out of memory";
  Writer w;
  w.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &why, keep_error, ignore_warning);
  if (w.png != nullptr) w.info = png_create_info_struct(w.png);
  if (w.info == nullptr) fail(path + ": " + why);
  Image copy = image;
  std::vector<png_bytep> rows = row_pointers(copy);
  if (!write_rows(w, file.stream(), copy, rows.data())) fail(path + ": " + why);
  file.finish();
}

}  // namespace adc
