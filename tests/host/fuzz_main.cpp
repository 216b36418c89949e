// libFuzzer target for everything that reads a file: the first byte chooses the reader. A refusal is
// an adc::Error; anything else (crash, hang, over-read, huge allocation) is a finding.
//
// Longer runs:  python -m tests.host.test_fuzz 3600
#include <cstdio>
#include <unistd.h>

#include <filesystem>

#include "bank_search.hpp"
#include "category.hpp"
#include "image.hpp"
#include "manifest.hpp"
#include "mosaic.hpp"
#include "npy.hpp"
#include "placement_report.hpp"
#include "provider_session.hpp"

namespace {

void write(const std::string& path, const void* data, std::size_t size) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) std::abort();
  std::fwrite(data, 1, size, file);
  std::fclose(file);
}

/// A file with these bytes, for readers that take a path.
std::string as_file(const std::uint8_t* data, std::size_t size) {
  static const std::string path = "fuzz-input-" + std::to_string(::getpid());
  write(path, data, size);
  return path;
}

/// A bundle whose category "c" has this category.json; its file "a" is empty.
std::string as_category(const std::uint8_t* data, std::size_t size) {
  static const std::string bundle = "fuzz-bundle-" + std::to_string(::getpid());
  static const std::string folder = bundle + "/categories/c";
  if (std::filesystem::create_directories(folder)) {
    const std::string manifest = R"({"files": {"p": {"sha256": "0"}}})";
    write(bundle + "/manifest.json", manifest.data(), manifest.size());
    write(folder + "/a", "", 0);
  }
  write(folder + "/category.json", data, size);
  return bundle;
}

/// A bundle with this manifest, compared with a program of one host part.
void use_manifest(const std::uint8_t* data, std::size_t size) {
  static const std::string folder = "fuzz-manifest-" + std::to_string(::getpid());
  std::filesystem::create_directories(folder);
  write(folder + "/manifest.json", data, size);
  adc::BundleInfo info{};
  info.values = {{"x", adc::DType::kFloat32, {adc::kFree, 3}}};
  adc::PartInfo part{};
  part.name = part.role = "p";
  part.executor = "cpu";
  part.precision = "fp32";
  part.inputs = part.outputs = {0};
  part.options = {{"o", "1"}};
  info.parts = {part};
  adc::check_parts(folder, info);
}

/// A layout that is accepted must be usable: rows of its first tensor go through its largest image.
void use_layout(const std::string& text) {
  const adc::Mosaic layout = adc::parse_mosaic(text, "fuzz");
  const adc::TileSpec& tile = layout.inputs.front().tile;
  const adc::TileGrid& grid = layout.grids.back();
  if (grid.height(tile) * grid.width(tile) > (1 << 16)) return;  // slow, not wrong
  const adc::Shape shape = adc::rows_shape(tile, grid.capacity(), 1);
  std::vector<std::byte> rows(static_cast<std::size_t>(shape.size()), std::byte{1});
  adc::AnyView image(adc::DType::kInt8, adc::image_shape(tile, grid, 1), nullptr);
  std::vector<std::byte> pixels(image.bytes());
  image.data = pixels.data();
  adc::pack_tiles({adc::DType::kInt8, shape, rows.data()}, tile, grid, pixels.data());
  std::vector<std::byte> again(rows.size());
  adc::unpack_tiles(image, tile, grid, grid.capacity(), again.data());
  if (rows != again) std::abort();
}

void read_one(std::uint8_t which, const std::uint8_t* data, std::size_t size) {
  switch (which % 12) {
    case 0:
      static_cast<void>(adc::parse_npy(data, size, "fuzz"));
      break;
    case 1:
      static_cast<void>(adc::parse_json(data, size, "fuzz"));
      break;
    case 2:
    case 3:
      static_cast<void>(adc::decode_image(data, size, "fuzz"));
      break;
    case 4: {
      std::FILE* stream = std::fopen(as_file(data, size).c_str(), "rb");
      adc::Image frame;
      try {
        while (adc::read_frame(stream, frame)) {
        }
      } catch (const adc::Error&) {
      }
      std::fclose(stream);
      break;
    }
    case 5: {
      const std::size_t payload = size < 64 ? 0 : size - 64;
      static_cast<void>(adc::Weights(as_file(data, size), payload, "0"));
      break;
    }
    case 7:
      static_cast<void>(adc::read_category(as_category(data, size), "c"));
      break;
    case 8:
      use_layout(std::string(data, data + size));
      break;
    case 9:
      use_manifest(data, size);
      break;
    case 10:
      static_cast<void>(adc::parse_session(data, size, "fuzz"));
      break;
    case 11:
      static_cast<void>(adc::parse_report(data, size, "fuzz"));
      break;
    default: {
      adc_bank* bank = nullptr;
      if (adc_bank_open_memory(data, size, &bank, nullptr, 0) == ADC_OK) adc_bank_close(bank);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    read_one(data[0], data + 1, size - 1);
  } catch (const adc::Error&) {  // refused with a sentence: what a bad file deserves
  }
  return 0;
}
