// allocations_main BUNDLE: replays the first golden sample three times and prints how often each
// host part took memory in the third.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "bundle.hpp"
#include "npy.hpp"

namespace {

long taken = 0;

void* take(std::size_t bytes, std::size_t alignment) {
  ++taken;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, size == 0 ? alignment : size);
  if (p == nullptr) std::abort();
  return p;
}

}  // namespace

void* operator new(std::size_t n) { return take(n, 16); }
void* operator new[](std::size_t n) { return take(n, 16); }
void* operator new(std::size_t n, std::align_val_t a) { return take(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return take(n, std::size_t(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n, 16); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n, 16); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, std::size_t(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, std::size_t(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

int main(int, char** argv) {
  const std::string folder = argv[1];
  adc::OpenOptions options;
  options.devices = false;
  adc::Bundle bundle(folder, options);
  const adc::BundleInfo& info = bundle.info();
  std::vector<adc::Array> recorded(info.values.size());
  for (const adc::GoldenTensor& t : info.golden.at(0).tensors) {
    recorded[static_cast<std::size_t>(t.value)] = adc::read_npy(folder + "/" + t.path);
  }
  for (int frame = 0; frame < 3; ++frame) {
    for (std::size_t i = 0; i < info.parts.size(); ++i) {
      const adc::PartInfo& part = info.parts[i];
      if (part.generated < 0) continue;
      for (const int v : part.inputs) bundle.set(v, recorded[static_cast<std::size_t>(v)].view());
      const long before = taken;
      bundle.run_part(i);
      if (frame == 2) std::printf("%s %ld\n", part.name, taken - before);
    }
  }
  return 0;
}
