// Loops over independent pieces of work, on one thread or several.
#pragma once

#include <atomic>

#include "tensor.hpp"

namespace adc {

/// Number of threads that parallel_for may use from now on; 1 (the default) means the caller only.
void set_threads(int count);

namespace detail {

extern std::atomic<int> thread_count;

using RangeBody = void (*)(void* context, Index first, Index last);
void parallel_run(Index count, Index block, RangeBody body, void* context);

}  // namespace detail

/// Elements to copy or to add up (about 40 microseconds) for which it pays to wake another thread.
inline constexpr Index kCopyGrain = 1 << 17;

[[nodiscard]] inline int threads() {
  return detail::thread_count.load(std::memory_order_relaxed);
}

/// Calls body(first, last) on disjoint ranges that cover [0, count). A range holds at least `grain`
/// items, so small work stays on the calling thread. Exceptions reach the caller; a nested call
/// runs on the thread it is made on.
template <class F>
void parallel_for(Index count, Index grain, F&& body) {
  if (count <= 0) return;
  const Index pieces = std::min(count / std::max(grain, Index{1}), Index{4} * threads());
  if (pieces <= 1 || threads() == 1) {
    body(Index{0}, count);
    return;
  }
  using Body = std::remove_reference_t<F>;
  const auto call = [](void* context, Index first, Index last) {
    (*static_cast<Body*>(context))(first, last);
  };
  detail::parallel_run(count, (count + pieces - 1) / pieces, call, &body);
}

}  // namespace adc
