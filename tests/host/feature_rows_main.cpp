// Prints a digest of every result bit of pools, transposes and joined pieces: the same on all machines.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "pool.hpp"
#include "resize.hpp"
#include "transpose.hpp"
#include "view.hpp"

namespace {

using adc::Index;
using adc::Shape;
using adc::View;
namespace op = adc::op;

/// Numbers that need all their digits, without a library whose results may differ.
std::vector<float> numbers(std::size_t count) {
  std::vector<float> made(count);
  std::uint32_t state = 1;
  for (float& value : made) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-24f - 0.3f;
  }
  return made;
}

template <class T>
void report(const char* name, View<T> result) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(result.data());
  std::uint64_t digest = 14695981039346656037u;  // FNV-1a
  for (Index i = 0; i < result.size() * static_cast<Index>(sizeof(T)); ++i) {
    digest = (digest ^ bytes[i]) * 1099511628211u;
  }
  std::printf("%s %s %016llx\n", name, result.shape().text().c_str(),
              static_cast<unsigned long long>(digest));
}

op::WindowSpec window(const Shape& kernel, const Shape& strides, const Shape& pads) {
  return {kernel, strides, Shape{}, pads, op::AutoPad::none, false};
}

void pools(View<float> a, View<float> b, adc::Buffer& buffer, adc::Scratch& scratch) {
  const adc::Out<float> out(buffer);
  const auto same = window(Shape{3, 3}, Shape{1, 1}, Shape{1, 1, 1, 1});
  const auto other = window(Shape{3, 5}, Shape{2, 3}, Shape{1, 0, 1, 4});
  report("mean, padding counts", op::average_pool(out, scratch, a, same, true));
  report("mean, padding does not", op::average_pool(out, scratch, b, same, false));
  report("mean, strides", op::average_pool(out, scratch, b, other, false));
  report("largest", op::max_pool(out, scratch, a, same));
  report("largest, strides", op::max_pool(out, scratch, b, other));
}

void rows(View<float> a, View<float> deep, adc::Buffer& buffer, adc::Scratch& scratch) {
  const adc::Out<float> out(buffer);
  const Shape last{0, 2, 3, 1};
  const float factors[] = {1.0f, 2.0f, 2.0f, 1.0f};
  report("turned", op::transpose(out, a, last));
  for (const auto mode : {op::Resample::nearest, op::Resample::linear, op::Resample::cubic}) {
    op::ResizeSpec spec;
    spec.mode = mode;
    const auto plan = op::plan_resize(deep.shape(), Shape{}, op::absent<float>(),
                                      View<float>(factors, Shape{4}), Shape{}, spec);
    report("joined", op::concat(out, 3, op::transposed(a, last),
                                op::resized(scratch, deep, plan, spec)));
  }
}

}  // namespace

int main() {
  const std::vector<float> data = numbers(200000);
  adc::Buffer buffer;
  adc::Scratch scratch;
  for (const int threads : {1, 3}) {
    adc::set_threads(threads);
    pools({data.data(), Shape{1, 128, 28, 28}}, {data.data() + 77, Shape{1, 3, 151, 333}}, buffer,
          scratch);
    rows({data.data(), Shape{1, 21, 14, 18}}, {data.data() + 99, Shape{1, 7, 9, 33}}, buffer,
         scratch);
  }
  return 0;
}
