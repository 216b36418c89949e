// Constants of the host parts: from weights.bin beside the program, or (cmake -DADC_EMBED_WEIGHTS=ON)
// from a copy of that file inside it.
#include <cstdio>

#include "part.hpp"
#include "sha256.hpp"

#if defined(ADC_EMBED_WEIGHTS)
__asm__(
    ".section .rodata\n"
    ".balign 64\n"
    ".hidden adc_weights_file\n"
    ".global adc_weights_file\n"
    "adc_weights_file:\n"
    ".incbin \"" ADC_EMBED_WEIGHTS
    "\"\n"
    ".previous\n");
extern "C" const unsigned char adc_weights_file[];
#endif

namespace adc {

namespace {

constexpr std::size_t kHeader = 64;

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

void check_header(const unsigned char* header, std::size_t payload, const std::string& path) {
  if (std::memcmp(header, "ADCW", 4) != 0) fail(path + ": not a weights file");
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{header[at + i]} << (8 * i);
    return value;
  };
  if (number(4, 4) != 1) fail(path + ": weights of an unknown version");
  if (number(8, 8) != payload) fail(path + ": weights of another build (size differs)");
}

void check_digest(const std::byte* payload, std::size_t size, const char* sha256,
                  const std::string& path) {
  Sha256 digest;
  digest.update(payload, size);
  if (digest.hex() != sha256) fail(path + ": weights differ from those of this build");
}

}  // namespace

#if defined(ADC_EMBED_WEIGHTS)
bool Weights::inside_program() { return true; }
#else
bool Weights::inside_program() { return false; }
#endif

Weights::Weights(const std::string& path, std::size_t payload_bytes, const char* sha256)
    : size_(payload_bytes) {
#if defined(ADC_EMBED_WEIGHTS)
  if (path.empty()) {
    const std::string where = "constants in the program";
    check_header(adc_weights_file, payload_bytes, where);
    data_ = reinterpret_cast<const std::byte*>(adc_weights_file) + kHeader;
    check_digest(data_, size_, sha256, where);
    return;
  }
#endif
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (!file) fail(path + ": cannot open");
  std::array<unsigned char, kHeader> header{};
  if (std::fread(header.data(), 1, kHeader, file.get()) != kHeader) fail(path + ": too short");
  check_header(header.data(), payload_bytes, path);
  // The size is looked at before memory of that size is taken.
  if (std::fseek(file.get(), 0, SEEK_END) != 0) fail(path + ": cannot read");
  const long length = std::ftell(file.get());
  if (length < 0 || static_cast<std::size_t>(length) != kHeader + payload_bytes) {
    fail(path + ": the file is shorter or longer than it says");
  }
  if (std::fseek(file.get(), kHeader, SEEK_SET) != 0) fail(path + ": cannot read");
  owned_.reset(static_cast<std::byte*>(
      ::operator new(std::max(payload_bytes, std::size_t{1}), std::align_val_t{kAlignment})));
  if (std::fread(owned_.get(), 1, size_, file.get()) != size_) fail(path + ": cannot read");
  data_ = owned_.get();
  check_digest(data_, size_, sha256, path);
}

const std::byte* Weights::at(std::size_t offset, const Shape& shape, std::size_t element) const {
  const auto bytes =
      static_cast<std::size_t>(checked_product(shape.size(), static_cast<Index>(element)));
  if (offset > size_ || bytes > size_ - offset || offset % kAlignment != 0) {
    fail("weights: a constant lies outside the file");
  }
  return data_ + offset;
}

}  // namespace adc
