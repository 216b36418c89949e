// Exercises the thread pool: every item once, exceptions reach the caller, nested loops work, the
// number of threads may change between loops. Exit code 0 when all holds.
#include <atomic>
#include <cstdio>

#include "threads.hpp"

namespace {

bool covers(adc::Index count, adc::Index grain) {
  std::vector<int> seen(static_cast<std::size_t>(count), 0);
  adc::parallel_for(count, grain, [&](adc::Index first, adc::Index last) {
    for (adc::Index i = first; i < last; ++i) ++seen[static_cast<std::size_t>(i)];
  });
  for (const int n : seen) {
    if (n != 1) return false;
  }
  return true;
}

bool throws() {
  try {
    adc::parallel_for(100, 1, [](adc::Index first, adc::Index) {
      if (first > 10) adc::fail("stop");
    });
  } catch (const adc::Error&) {
    return true;
  }
  return false;
}

bool nests() {
  std::atomic<int> total{0};
  adc::parallel_for(8, 1, [&](adc::Index first, adc::Index last) {
    for (adc::Index i = first; i < last; ++i) {
      adc::parallel_for(5, 1, [&](adc::Index a, adc::Index b) { total += static_cast<int>(b - a); });
    }
  });
  return total == 40;
}

}  // namespace

int main() {
  bool good = true;
  for (const int threads : {1, 2, 4, 2, 1}) {
    adc::set_threads(threads);
    for (const adc::Index count : {0, 1, 7, 1000}) good = good && covers(count, 3);
    good = good && (threads == 1 || throws()) && covers(50, 1) && nests();
  }
  adc::set_threads(1);
  if (!good) std::printf("wrong\n");
  return good ? 0 : 1;
}
