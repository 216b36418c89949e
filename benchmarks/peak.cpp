// What the machine could do: float32 operations a second in fused multiply-adds, one thread.
// Compiled with -march=native -O2; chains enough to hide the latency of the instructions.
#include <chrono>

namespace {

constexpr int kChains = 12, kRounds = 20'000'000;
constexpr int kBytes =
#if defined(__AVX512F__)
    64;
#elif defined(__AVX2__)
    32;
#else
    16;
#endif
#if defined(__aarch64__)
#define ADC_REGISTER(x) "+w"(x)
#else
#define ADC_REGISTER(x) "+v"(x)
#endif
typedef float Floats __attribute__((vector_size(kBytes)));

}  // namespace

// Billions of float32 operations a second; a fused multiply-add is two.
extern "C" double peak_gflops() {
    Floats sums[kChains] = {};
    Floats x = {}, y = {};
    x += 0.5f;
    y += 0.25f;
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) {
            sums[i] = sums[i] * x + y;
            __asm__ volatile("" : ADC_REGISTER(sums[i]));  // each is computed, and stays in its register
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return 2.0 * kRounds * kChains * (kBytes / 4) / took.count() / 1e9;
}
