// AVX-512 without dot-product instructions.
#include "bank_kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#if !defined(__clang__)  // false alarms inside GCC 12's own intrinsics (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define ADC_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,fma,avx2"
#define ADC_TARGET __attribute__((target(ADC_FEATURES)))
#define ADC_INLINE __attribute__((always_inline, target(ADC_FEATURES))) static inline

namespace adc::search {
namespace {

#include "bank_floats_avx512.hpp"

struct Plain512 : Floats {
    using I = __m512i;
    struct Bank { __m512i even, odd; };  // int16 columns 0, 2 and 1, 3
    struct Code { __m512i even, odd; };
    static constexpr float kDenseCost = 4;
    static constexpr int kDenseQueries = 8, kDensePanels = 2, kCodeBytes = 2;

    ADC_INLINE I start(const std::int32_t*) { return _mm512_setzero_si512(); }
    ADC_INLINE I nothing() { return _mm512_setzero_si512(); }
    ADC_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    ADC_INLINE Bank bank(const std::int8_t* p) {
        const __m512i v = _mm512_loadu_si512(p);
        return {_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
    }
    // Codes are int16, four columns stored as 0, 2, 1, 3.
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t even, odd;
        std::memcpy(&even, p, 4);
        std::memcpy(&odd, p + 4, 4);
        return {_mm512_set1_epi32(even), _mm512_set1_epi32(odd)};
    }
    ADC_INLINE I dot(I s, const Bank& b, const Code& c) {
        s = _mm512_add_epi32(s, _mm512_madd_epi16(b.even, c.even));
        return _mm512_add_epi32(s, _mm512_madd_epi16(b.odd, c.odd));
    }
    ADC_INLINE void store_codes(F x, void* codes, std::int64_t column) {
        const __m256i line = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x));
        const __m256i swap = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,
                                              0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<std::int16_t*>(codes) + column),
                            _mm256_shuffle_epi8(line, swap));
    }
};

#include "bank_kernels_impl.hpp"

}  // namespace

const Kernels* avx512_kernels() {
    static const Kernels k = kernels_of<Plain512>("avx512");
    const bool usable = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return usable ? &k : nullptr;
}

}  // namespace adc::search
#else
namespace adc::search {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace adc::search
#endif
