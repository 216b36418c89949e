#include "part.hpp"

#include <cstdio>

#include "sha256.hpp"

namespace adc {

namespace {

struct TypeInfo {
  const char* name;
  std::size_t size;
};
constexpr std::array<TypeInfo, 14> kTypes{{{"", 0},
                                           {"float32", 4},
                                           {"float64", 8},
                                           {"float16", 2},
                                           {"bfloat16", 2},
                                           {"bool", 1},
                                           {"int8", 1},
                                           {"int16", 2},
                                           {"int32", 4},
                                           {"int64", 8},
                                           {"uint8", 1},
                                           {"uint16", 2},
                                           {"uint32", 4},
                                           {"uint64", 8}}};

const TypeInfo& info(DType dtype) {
  const int i = static_cast<int>(dtype);
  if (i <= 0 || i >= static_cast<int>(kTypes.size())) fail("no such element type");
  return kTypes[static_cast<std::size_t>(i)];
}

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

constexpr std::size_t kHeader = 64;

void check_header(const std::array<unsigned char, kHeader>& header, std::size_t payload,
                  const std::string& path) {
  if (std::memcmp(header.data(), "ADCW", 4) != 0) fail(path + ": not a weights file");
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{header[at + i]} << (8 * i);
    return value;
  };
  if (number(4, 4) != 1) fail(path + ": weights of an unknown version");
  if (number(8, 8) != payload) fail(path + ": weights of another build (size differs)");
}

}  // namespace

std::size_t element_size(DType dtype) { return info(dtype).size; }
const char* dtype_name(DType dtype) { return info(dtype).name; }

void check_port(const AnyView& tensor, const Port& port) {
  const std::string name = port.name;
  if (tensor.data == nullptr) fail("'" + name + "' was not given");
  if (tensor.dtype != port.dtype) {
    fail("'" + name + "' is " + dtype_name(tensor.dtype) + ", expected " +
         dtype_name(port.dtype));
  }
  if (port.dims.size() == 1 && port.dims[0] == kAnyRank) return;
  bool fits = tensor.shape.rank() == static_cast<int>(port.dims.size());
  for (int i = 0; fits && i < tensor.shape.rank(); ++i) {
    const Index wanted = port.dims[static_cast<std::size_t>(i)];
    fits = tensor.shape[i] >= 0 && (wanted == kFree || wanted == tensor.shape[i]);
  }
  if (fits) return;
  std::string wanted;
  for (const Index d : port.dims) {
    wanted += (wanted.empty() ? "" : ", ") + (d == kFree ? "?" : std::to_string(d));
  }
  fail("'" + name + "' has shape " + tensor.shape.text() + ", expected [" + wanted + "]");
}

Weights::Weights(const std::string& path, std::size_t payload_bytes, const char* sha256) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (!file) fail(path + ": cannot open");
  std::array<unsigned char, kHeader> header{};
  if (std::fread(header.data(), 1, kHeader, file.get()) != kHeader) fail(path + ": too short");
  check_header(header, payload_bytes, path);
  data_.reset(static_cast<std::byte*>(
      ::operator new(std::max(payload_bytes, std::size_t{1}), std::align_val_t{kAlignment})));
  size_ = payload_bytes;
  if (std::fread(data_.get(), 1, size_, file.get()) != size_) fail(path + ": too short");
  if (std::fgetc(file.get()) != EOF) fail(path + ": longer than it says");
  Sha256 digest;
  digest.update(data_.get(), size_);
  if (digest.hex() != sha256) fail(path + ": weights differ from those of this build");
}

const std::byte* Weights::at(std::size_t offset, const Shape& shape, std::size_t element) const {
  const auto bytes =
      static_cast<std::size_t>(checked_product(shape.size(), static_cast<Index>(element)));
  if (offset > size_ || bytes > size_ - offset || offset % kAlignment != 0) {
    fail("weights: a constant lies outside the file");
  }
  return data_.get() + offset;
}

}  // namespace adc
