// Counts every memory block that the program takes. Include it in one file of a program. With
// COUNT_OWN_ONLY, blocks that shared libraries take do not count.
#pragma once

#include <cstdlib>
#include <new>

#if defined(COUNT_OWN_ONLY)
extern "C" const char __executable_start;  // NOLINT: the linker's names
extern "C" const char etext;               // NOLINT
#endif

#define CALLER __builtin_return_address(0)

namespace {

long taken = 0;

/// True when the code at this address may not take memory unnoticed.
bool counts([[maybe_unused]] const void* caller) {
#if defined(COUNT_OWN_ONLY)
  return caller >= &__executable_start && caller < &etext;
#else
  return true;
#endif
}

void* take(std::size_t bytes, std::size_t alignment, const void* caller) {
  if (counts(caller)) ++taken;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, size == 0 ? alignment : size);
  if (p == nullptr) std::abort();
  return p;
}

/// Not inlined: GCC would take a pair of ours for a mismatched one.
[[gnu::noinline]] void give(void* p) { std::free(p); }

}  // namespace

void* operator new(std::size_t n) { return take(n, 16, CALLER); }
void* operator new[](std::size_t n) { return take(n, 16, CALLER); }
void* operator new(std::size_t n, std::align_val_t a) {
  return take(n, std::size_t(a), CALLER);
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return take(n, std::size_t(a), CALLER);
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n, 16, CALLER); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n, 16, CALLER); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, std::size_t(a), CALLER);
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, std::size_t(a), CALLER);
}
void operator delete(void* p) noexcept { give(p); }
void operator delete[](void* p) noexcept { give(p); }
void operator delete(void* p, std::size_t) noexcept { give(p); }
void operator delete[](void* p, std::size_t) noexcept { give(p); }
void operator delete(void* p, std::align_val_t) noexcept { give(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { give(p); }
