#include "npy.hpp"

#include <cstdio>

namespace adc {

namespace {

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

struct TypeCode {
  const char* code;
  DType dtype;
};
constexpr std::array<TypeCode, 15> kCodes{{{"<f4", DType::kFloat32},
                                           {"<f8", DType::kFloat64},
                                           {"<f2", DType::kFloat16},
                                           {"|b1", DType::kBool},
                                           {"|i1", DType::kInt8},
                                           {"<i1", DType::kInt8},
                                           {"<i2", DType::kInt16},
                                           {"<i4", DType::kInt32},
                                           {"<i8", DType::kInt64},
                                           {"|u1", DType::kUint8},
                                           {"<u1", DType::kUint8},
                                           {"<u2", DType::kUint16},
                                           {"<u4", DType::kUint32},
                                           {"<u8", DType::kUint64},
                                           {"<b1", DType::kBool}}};

/// Reads the header's Python dictionary: exactly the three keys that numpy writes.
class Header {
 public:
  Header(const char* text, std::size_t size, const std::string& where)
      : at_(text), end_(text + size), where_(where) {}

  void parse(Array& array) {
    expect('{');
    bool descr = false;
    bool order = false;
    bool shape = false;
    while (!next('}')) {
      const std::string key = text();
      expect(':');
      if (key == "descr" && !descr) {
        array.dtype = type(text());
        descr = true;
      } else if (key == "fortran_order" && !order) {
        if (word() != "False") bad("Fortran order");
        order = true;
      } else if (key == "shape" && !shape) {
        array.shape = tuple();
        shape = true;
      } else {
        bad("unexpected key");
      }
      if (!next(',')) {
        expect('}');
        break;
      }
    }
    if (!descr || !order || !shape) bad("a key is missing");
  }

 private:
  [[noreturn]] void bad(const char* why) const { fail(where_ + ": not a usable .npy: " + why); }
  void blank() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n')) ++at_;
  }
  bool next(char c) {
    blank();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!next(c)) bad("broken header");
  }
  std::string text() {
    blank();
    if (at_ == end_ || (*at_ != '\'' && *at_ != '"')) bad("broken header");
    const char quote = *at_++;
    const char* first = at_;
    while (at_ < end_ && *at_ != quote) ++at_;
    if (at_ == end_) bad("broken header");
    return {first, at_++};
  }
  std::string word() {
    blank();
    const char* first = at_;
    while (at_ < end_ && ((*at_ >= 'a' && *at_ <= 'z') || (*at_ >= 'A' && *at_ <= 'Z'))) ++at_;
    return {first, at_};
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!next(')')) {
      blank();
      if (shape.rank() == kMaxRank) bad("rank over 8");
      if (at_ == end_ || *at_ < '0' || *at_ > '9') bad("broken shape");
      Index value = 0;
      while (at_ < end_ && *at_ >= '0' && *at_ <= '9') {
        value = checked_product(value, 10) + (*at_++ - '0');
        if (value > (Index{1} << 48)) bad("dimension too large");
      }
      shape.push_back(value);
      if (!next(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }
  DType type(const std::string& code) const {
    for (const TypeCode& known : kCodes) {
      if (code == known.code) return known.dtype;
    }
    bad("element type");
  }

  const char* at_;
  const char* end_;
  const std::string& where_;
};

}  // namespace

std::vector<unsigned char> read_file(const std::string& path, std::size_t limit) {
  const File file(std::fopen(path.c_str(), "rb"));
  if (!file) fail(path + ": cannot open");
  std::vector<unsigned char> data;
  std::array<unsigned char, 65536> block;
  while (const std::size_t got = std::fread(block.data(), 1, block.size(), file.get())) {
    if (got > limit - data.size()) fail(path + ": too large");
    data.insert(data.end(), block.data(), block.data() + got);
  }
  if (std::ferror(file.get()) != 0) fail(path + ": cannot read");
  return data;
}

Array parse_npy(const unsigned char* data, std::size_t size, const std::string& where) {
  if (size < 10 || std::memcmp(data, "\x93NUMPY", 6) != 0) fail(where + ": not a .npy file");
  const unsigned version = data[6];
  if (version < 1 || version > 3) fail(where + ": .npy of an unknown version");
  const std::size_t lead = version == 1 ? 10 : 12;
  if (size < lead) fail(where + ": too short");
  std::size_t length = data[8] | std::size_t{data[9]} << 8;
  if (version > 1) length |= std::size_t{data[10]} << 16 | std::size_t{data[11]} << 24;
  if (length > size - lead || length > 65536) fail(where + ": header too long");
  Array array;
  Header(reinterpret_cast<const char*>(data) + lead, length, where).parse(array);
  const auto bytes = static_cast<std::size_t>(
      checked_product(array.shape.size(), static_cast<Index>(element_size(array.dtype))));
  if (bytes != size - lead - length) fail(where + ": size does not fit the shape");
  std::byte* to = array.memory.reserve(bytes);
  if (bytes != 0) std::memcpy(to, data + lead + length, bytes);
  if (array.dtype == DType::kBool) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = std::byte{to[i] != std::byte{0}};
  }
  return array;
}

Array read_npy(const std::string& path) {
  const std::vector<unsigned char> data = read_file(path, std::size_t{1} << 40);
  return parse_npy(data.data(), data.size(), path);
}

void write_npy(const std::string& path, const AnyView& tensor) {
  const char* code = nullptr;
  for (const TypeCode& known : kCodes) {
    if (known.dtype == tensor.dtype && code == nullptr) code = known.code;
  }
  if (code == nullptr) fail(path + ": element type has no .npy code");
  std::string header = std::string("{'descr': '") + code + "', 'fortran_order': False, 'shape': (";
  for (const Index d : tensor.shape) header += std::to_string(d) + ",";
  header += "), }";
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  const File file(std::fopen(path.c_str(), "wb"));
  if (!file) fail(path + ": cannot write");
  const std::array<unsigned char, 10> lead{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0,
                                           static_cast<unsigned char>(header.size() & 255),
                                           static_cast<unsigned char>(header.size() >> 8)};
  const std::size_t bytes = tensor.bytes();
  const bool written = std::fwrite(lead.data(), 1, lead.size(), file.get()) == lead.size() &&
                       std::fwrite(header.data(), 1, header.size(), file.get()) == header.size() &&
                       std::fwrite(tensor.data, 1, bytes, file.get()) == bytes &&
                       std::fflush(file.get()) == 0;
  if (!written) fail(path + ": cannot write");
}

}  // namespace adc
