// JPEG through libjpeg. Its errors jump; everything with a destructor lives outside the jump.
#include <cstdio>  // libjpeg's header needs it first

#include <jpeglib.h>

#include <csetjmp>

#include "image_format.hpp"

namespace adc {

namespace {

struct Errors {
  jpeg_error_mgr base;  // first: libjpeg hands out its address
  std::jmp_buf jump;
  std::array<char, JMSG_LENGTH_MAX> text;
};

void keep_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<Errors*>(info->err);
  info->err->format_message(info, errors->text.data());
  std::longjmp(errors->jump, 1);
}

/// Warnings mean lost data: a damaged picture is refused, not guessed.
void keep_warning(j_common_ptr info, int level) {
  if (level < 0) keep_error(info);
}

struct Decoder {
  jpeg_decompress_struct info{};
  Errors errors{};
  jpeg_progress_mgr progress{};
  const char* refused = nullptr;  // why a sound file is not decoded
  ~Decoder() { jpeg_destroy_decompress(&info); }
};

/// Scans of a progressive picture; cameras and editors write about ten. Each costs a pass over all
/// coefficients, so a small file with many would take very long.
constexpr int kMostScans = 100;

void stop_at_many_scans(j_common_ptr info) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(info);
  if (decoder->input_scan_number <= kMostScans) return;
  auto* errors = reinterpret_cast<Errors*>(info->err);
  std::snprintf(errors->text.data(), errors->text.size(), "more than %d scans", kMostScans);
  std::longjmp(errors->jump, 1);
}

/// The sentence why this picture is not decoded, or null. Looked at before memory is taken: a
/// progressive picture is buffered whole.
const char* refusal(const jpeg_decompress_struct& info, std::size_t size) {
  if (info.image_width > 65536 || info.image_height > 65536 ||
      std::uint64_t{info.image_width} * info.image_height > (std::uint64_t{1} << 26)) {
    return "too many pixels";
  }
  if (info.arith_code != 0) return "arithmetic coding is not supported";
  if (info.num_components != 1 && info.num_components != 3) {
    return "only grey and colour pictures are supported, this one is for print (CMYK)";
  }
  // Every block of 8 x 8 samples costs at least one bit, its first coefficient's Huffman code.
  std::uint64_t blocks = 0;
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& component = info.comp_info[i];
    blocks += std::uint64_t{component.width_in_blocks} * component.height_in_blocks;
  }
  if (blocks > std::uint64_t{8} * size) return "more pixels than a file of this size can hold";
  return nullptr;
}

bool open_picture(Decoder& d, const unsigned char* data, std::size_t size) {
  if (setjmp(d.errors.jump) != 0) return false;
  jpeg_create_decompress(&d.info);
  jpeg_mem_src(&d.info, data, static_cast<unsigned long>(size));
  jpeg_read_header(&d.info, TRUE);
  if (const char* why = refusal(d.info, size)) {
    d.refused = why;
    return false;
  }
  d.progress.progress_monitor = stop_at_many_scans;
  d.info.progress = &d.progress;
  d.info.out_color_space = d.info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  d.info.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&d.info);
  return true;
}

bool read_rows(Decoder& d, Image& image) {
  if (setjmp(d.errors.jump) != 0) return false;
  while (d.info.output_scanline < d.info.output_height) {
    JSAMPROW row = image.at(static_cast<int>(d.info.output_scanline), 0);
    jpeg_read_scanlines(&d.info, &row, 1);
  }
  jpeg_finish_decompress(&d.info);
  return true;
}

}  // namespace

Image decode_jpeg(const unsigned char* data, std::size_t size, const std::string& where) {
  Decoder d;
  d.info.err = jpeg_std_error(&d.errors.base);
  d.errors.base.error_exit = keep_error;
  d.errors.base.emit_message = keep_warning;
  if (!open_picture(d, data, size)) {
    if (d.refused != nullptr) fail(where + ": " + d.refused);
    damaged(where, d.errors.text.data());
  }
  Image image = make_image(static_cast<int>(d.info.output_width),
                           static_cast<int>(d.info.output_height), d.info.output_components, where);
  if (!read_rows(d, image)) damaged(where, d.errors.text.data());
  return image;
}

}  // namespace adc
