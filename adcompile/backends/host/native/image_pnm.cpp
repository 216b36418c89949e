// Binary PGM and PPM (P5, P6), 8 or 16 bits: files, and frames of a stream.
#include <cmath>

#include "image_format.hpp"

namespace adc {

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;

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
  std::size_t at_ = 2;
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

/// Size and sample range of a binary PGM or PPM picture.
struct PnmLayout {
  int width;
  int height;
  int channels;
  int top;
  std::size_t start;  ///< where the samples begin

  [[nodiscard]] std::size_t sample_bytes() const { return top > 255 ? 2 : 1; }
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
           static_cast<std::size_t>(channels) * sample_bytes();
  }
};

PnmLayout read_header(const unsigned char* data, std::size_t size, const std::string& where) {
  PnmHeader header(data, size, where);
  const int width = header.number();
  const int height = header.number();
  const int top = header.number();
  if (top < 1 || top > 65535) damaged(where, "sample range");
  check_picture_size(width, height, where);
  return {width, height, data[1] == '5' ? 1 : 3, top, header.end()};
}

}  // namespace

Image decode_pnm(const unsigned char* data, std::size_t size, const std::string& where) {
  const PnmLayout layout = read_header(data, size, where);
  if (layout.bytes() > size - layout.start) damaged(where, "too short");
  Image image = make_image(layout.width, layout.height, layout.channels, where);
  const unsigned char* from = data + layout.start;
  for (unsigned char& pixel : image.pixels) {
    const int value = layout.sample_bytes() == 2 ? from[0] << 8 | from[1] : from[0];
    pixel = to_byte(value, layout.top, layout.channels == 1);
    from += layout.sample_bytes();
  }
  return image;
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
  const PnmLayout layout = read_header(bytes.data(), bytes.size(), where);
  // Taken in pieces, so that memory follows what has really arrived and not what was promised.
  std::size_t missing = layout.bytes();
  while (missing != 0) {
    const std::size_t piece = std::min(missing, kPiece);
    const std::size_t have = bytes.size();
    bytes.resize(have + piece);
    if (std::fread(bytes.data() + have, 1, piece, stream) != piece) {
      damaged(where, "stream ends in a picture");
    }
    missing -= piece;
  }
  frame = decode_pnm(bytes.data(), bytes.size(), where);
  return true;
}

void write_pnm(const std::string& path, const Image& image) {
  OutputFile file(path);
  const std::string header = std::string(image.channels == 1 ? "P5\n" : "P6\n") +
                             std::to_string(image.width) + " " + std::to_string(image.height) +
                             "\n255\n";
  file.put(header.data(), header.size());
  file.put(image.pixels.data(), image.pixels.size());
  file.finish();
}

}  // namespace adc
