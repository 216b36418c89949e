// Prints how far PaDiM's distances are from double precision, and a digest of their bits.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "mahalanobis.hpp"

namespace {

using adc::Index;
using adc::Shape;
using adc::View;
namespace op = adc::op;

/// Numbers that need all their digits, without a library whose results may differ.
std::vector<float> numbers(Index count, std::uint32_t state) {
  std::vector<float> made(static_cast<std::size_t>(count));
  for (float& value : made) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-24f - 0.3f;
  }
  return made;
}

/// Squares of the lengths, added in double precision.
std::vector<double> lengths(const Shape& shape, const float* x, const float* mean,
                            const float* factor) {
  const Index channels = shape[1];
  const Index patches = shape[2] * shape[3];
  std::vector<double> found;
  for (Index n = 0; n < shape[0]; ++n) {
    for (Index p = 0; p < patches; ++p) {
      const float* lower = factor + p / 16 * channels * (channels + 1) / 2 * 16 + p % 16;
      double sum = 0;
      for (Index r = 0; r < channels; ++r) {
        double length = 0;
        for (Index c = 0; c <= r; ++c, lower += 16) {
          const double gap = double{x[(n * channels + c) * patches + p]} - mean[c * patches + p];
          length += double{*lower} * gap;
        }
        sum += length * length;
      }
      found.push_back(sum);
    }
  }
  return found;
}

void report(const Shape& shape) {
  const Index channels = shape[1];
  const Index patches = shape[2] * shape[3];
  const Shape packed{(patches + 15) / 16, channels * (channels + 1) / 2, 16};
  const std::vector<float> x = numbers(shape.size(), 1);
  const std::vector<float> mean = numbers(channels * patches, 2);
  const std::vector<float> factor = numbers(packed.size(), 3);
  adc::Buffer buffer;
  adc::Scratch scratch;
  const View<float> found = op::whitened_map(
      adc::Out<float>(buffer), scratch, View<float>(x.data(), shape),
      View<float>(mean.data(), Shape{channels, patches}), View<float>(factor.data(), packed));
  const std::vector<double> wanted = lengths(shape, x.data(), mean.data(), factor.data());
  double worst = 0;
  std::uint64_t digest = 14695981039346656037u;  // FNV-1a
  for (Index i = 0; i < found.size(); ++i) {
    const double truth = wanted[static_cast<std::size_t>(i)];
    worst = std::max(worst, std::fabs(found[i] - truth) / truth);
    std::uint32_t bits = 0;
    std::memcpy(&bits, found.data() + i, sizeof(bits));
    digest = (digest ^ bits) * 1099511628211u;
  }
  std::printf("%s %.3g %016llx\n", shape.text().c_str(), worst,
              static_cast<unsigned long long>(digest));
}

}  // namespace

int main() {
  for (const int threads : {1, 3}) {
    adc::set_threads(threads);
    for (const Index channels : {Index{1}, Index{3}, Index{4}, Index{7}, Index{33}}) {
      report(Shape{1, channels, 1, 1});
      report(Shape{1, channels, 4, 4});
      report(Shape{3, channels, 5, 7});
    }
    report(Shape{1, 100, 9, 16});
  }
  return 0;
}
