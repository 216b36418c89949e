// Constants of the host parts: from weights.bin and PaDiM's bank file of statistics, or (cmake
// -DADC_EMBED_WEIGHTS=ON) from copies of these files inside the program.
#include <cstdio>

#include "pages.hpp"
#include "part.hpp"
#include "sha256.hpp"

#if defined(ADC_EMBED_WEIGHTS)
#define ADC_INSIDE(symbol, file)  \
  __asm__(                        \
      ".section .rodata\n"       \
      ".balign 64\n"             \
      ".hidden " symbol "\n"     \
      ".global " symbol "\n"     \
      symbol ":\n"               \
      ".incbin \"" file "\"\n"  \
      ".previous\n")
#if defined(ADC_EMBEDDED_WEIGHTS)
ADC_INSIDE("adc_weights_file", ADC_EMBEDDED_WEIGHTS);
extern "C" const unsigned char adc_weights_file[];
#endif
#if defined(ADC_EMBEDDED_STATISTICS)
ADC_INSIDE("adc_statistics_file", ADC_EMBEDDED_STATISTICS);
extern "C" const unsigned char adc_statistics_file[];
#endif
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

namespace {

/// The file of a kind that is inside the program; fails when there is none.
const unsigned char* inside(Weights::Kind kind) {
#if defined(ADC_EMBEDDED_WEIGHTS)
  if (kind == Weights::Kind::weights) return adc_weights_file;
#endif
#if defined(ADC_EMBEDDED_STATISTICS)
  if (kind == Weights::Kind::statistics) return adc_statistics_file;
#endif
  (void)kind;
  fail("the program was built without its constants");
}

}  // namespace

Weights::Weights(const std::string& path, std::size_t payload_bytes, const char* sha256, Kind kind)
    : size_(payload_bytes) {
  const std::size_t start = kind == Kind::weights ? kHeader : 0;
  if (path.empty()) {
    const std::string where = "constants in the program";
    const unsigned char* file = inside(kind);
    if (start != 0) check_header(file, payload_bytes, where);
    data_ = reinterpret_cast<const std::byte*>(file) + start;
    check_digest(data_, size_, sha256, where);
    return;
  }
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (!file) fail(path + ": cannot open");
  std::array<unsigned char, kHeader> header{};
  if (start != 0 && std::fread(header.data(), 1, kHeader, file.get()) != kHeader) {
    fail(path + ": too short");
  }
  if (start != 0) check_header(header.data(), payload_bytes, path);
  // The size is looked at before memory of that size is taken.
  if (std::fseek(file.get(), 0, SEEK_END) != 0) fail(path + ": cannot read");
  const long length = std::ftell(file.get());
  if (length < 0 || static_cast<std::size_t>(length) != start + payload_bytes) {
    fail(path + ": the file is shorter or longer than it should be");
  }
  if (std::fseek(file.get(), static_cast<long>(start), SEEK_SET) != 0) fail(path + ": cannot read");
  owned_.reset(static_cast<std::byte*>(
      ::operator new(std::max(payload_bytes, std::size_t{1}), std::align_val_t{kAlignment})));
  prefer_large_pages(owned_.get(), size_);
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
