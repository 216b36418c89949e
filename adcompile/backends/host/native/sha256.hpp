// SHA-256 (FIPS 180-4), to compare a file with the digest that was compiled in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace adc {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  /// The digest as 64 hex digits. The object is spent afterwards.
  [[nodiscard]] std::string hex();

 private:
  void block(const std::uint8_t* at);

  std::array<std::uint32_t, 8> state_{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t filled_ = 0;
  std::uint64_t total_ = 0;
};

/// Digest of a file, read in blocks.
[[nodiscard]] std::string sha256_of(const std::string& path);

}  // namespace adc
