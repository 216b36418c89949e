// What the readers and writers of single picture formats share; programs include image.hpp.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "image.hpp"

namespace adc {

// Readers, called by decode_image when the content starts like their format. A claimed size is
// believed only as far as the bytes that are there allow it, before memory of that size is taken:
// exactly for PNM and BMP, by the highest possible compression for PNG and JPEG.
[[nodiscard]] Image decode_pnm(const unsigned char* data, std::size_t size,
                               const std::string& where);
[[nodiscard]] Image decode_bmp(const unsigned char* data, std::size_t size,
                               const std::string& where);
[[nodiscard]] Image decode_png(const unsigned char* data, std::size_t size,
                               const std::string& where);
[[nodiscard]] Image decode_jpeg(const unsigned char* data, std::size_t size,
                                const std::string& where);

/// Any other content, or a format whose library is missing: OpenCV's business; without OpenCV it
/// fails with the sentence `why`.
[[nodiscard]] Image decode_other(const unsigned char* data, std::size_t size,
                                 const std::string& where, const char* why);

void write_pnm(const std::string& path, const Image& image);
void write_bmp(const std::string& path, const Image& image);
void write_png(const std::string& path, const Image& image);
void write_other(const std::string& path, const Image& image, const char* why);

[[noreturn]] inline void damaged(const std::string& where, const std::string& why) {
  fail(where + ": damaged picture: " + why);
}

/// A file being written; whatever goes wrong names the path.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
    if (!file_) broken();
  }
  void put(const void* data, std::size_t size) {
    if (std::fwrite(data, 1, size, file_.get()) != size) broken();
  }
  /// The last bytes reach the disk here, so a full disk shows here.
  void finish() {
    if (std::fclose(file_.release()) != 0) broken();
  }
  [[nodiscard]] std::FILE* stream() const { return file_.get(); }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  [[noreturn]] void broken() const { fail(path_ + ": cannot write"); }

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace adc
