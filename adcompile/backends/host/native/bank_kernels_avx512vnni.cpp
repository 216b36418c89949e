// AVX-512 with the dot-product instructions (VNNI).
#include "bank_kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#if !defined(__clang__)  // false alarms inside GCC 12's own intrinsics (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define ADC_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,avx2"
#define ADC_TARGET __attribute__((target(ADC_FEATURES)))
#define ADC_INLINE __attribute__((always_inline, target(ADC_FEATURES))) static inline

namespace adc::search {
namespace {

#include "bank_floats_avx512.hpp"

struct Vnni : Floats {
    using I = __m512i;
    using Bank = __m512i;
    using Code = __m512i;
    static constexpr float kDenseCost = 1.2f;
    static constexpr int kDenseQueries = 12, kDensePanels = 2, kCodeBytes = 1;

    // Codes are stored + 128: the instruction multiplies unsigned by signed. The sums undo it.
    ADC_INLINE I start(const std::int32_t* sums) { return _mm512_loadu_si512(sums); }
    ADC_INLINE I nothing() { return _mm512_setzero_si512(); }
    ADC_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    ADC_INLINE Bank bank(const std::int8_t* p) { return _mm512_loadu_si512(p); }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t four;
        std::memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }
    ADC_INLINE I dot(I s, Bank b, Code c) {
        // Written out: GCC 12 copies and spills the accumulators around the intrinsic.
        __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(c), "v"(b));
        return s;
    }
    ADC_INLINE void store_codes(F x, void* codes, std::int64_t column) {
        const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<unsigned char*>(codes) + column),
                         _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
    }
};

#include "bank_kernels_impl.hpp"

}  // namespace

const Kernels* avx512vnni_kernels() {
    static const Kernels k = kernels_of<Vnni>("avx512vnni");
    const bool usable = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    return usable ? &k : nullptr;
}

}  // namespace adc::search
#else
namespace adc::search {
const Kernels* avx512vnni_kernels() { return nullptr; }
}  // namespace adc::search
#endif
