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

#include "bank_lanes_avx512.hpp"

struct Plain512 : Floats {
    using Thin = Plain512;
    using Lanes = QueryLanes;
    using I = __m512i;
    struct Bank { __m512i low, high; };  // int16 columns 0, 1 and 2, 3
    struct Code { __m512i low, high; };
    static constexpr int kTileQueries = 8, kTilePanels = 2, kCodeBytes = 2, kDirectHalf = 3;

    ADC_INLINE I start(std::int32_t) { return _mm512_setzero_si512(); }
    ADC_INLINE I start(std::int32_t, I common) { return common; }
    ADC_INLINE std::int32_t bias(const unsigned char*, std::int64_t) { return 0; }
    ADC_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    // Bytes `first` and `first` + 1 of each row as int16: to the upper halves, then down with the sign.
    ADC_INLINE __m512i pair(__m512i v, int first) {
        const __m512i low = _mm512_set4_epi32(0x0D800C80, 0x09800880, 0x05800480, 0x01800080);
        const __m512i step = _mm512_set1_epi32(first * 0x01000100);
        return _mm512_srai_epi16(_mm512_shuffle_epi8(v, _mm512_add_epi8(low, step)), 8);
    }
    ADC_INLINE Bank bank(const std::int8_t* p) {
        const __m512i v = _mm512_loadu_si512(p);
        return {pair(v, 0), pair(v, 2)};
    }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t low, high;
        std::memcpy(&low, p, 4);
        std::memcpy(&high, p + 4, 4);
        return {_mm512_set1_epi32(low), _mm512_set1_epi32(high)};
    }
    ADC_INLINE I dot(I s, const Bank& b, const Code& c) {
        s = _mm512_add_epi32(s, _mm512_madd_epi16(b.low, c.low));
        return _mm512_add_epi32(s, _mm512_madd_epi16(b.high, c.high));
    }
    ADC_INLINE void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                             std::int64_t columns, std::int32_t* out) {
        __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (std::int64_t i = 0; i < columns; i += 32) {
            const __m512i c = _mm512_loadu_si512(codes + 2 * i);
            for (int n = 0; n < 4; ++n) {
                const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[n] + i));
                sum[n] = _mm512_add_epi32(sum[n], _mm512_madd_epi16(_mm512_cvtepi8_epi16(row), c));
            }
        }
        fold(sum, out);
    }
    ADC_INLINE void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                              std::int64_t columns, std::int32_t* out) {
        __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (std::int64_t i = 0; i < columns; i += 32)
            for (int n = 0; n < 4; ++n) {
                const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[n] + i));
                sum[n] = _mm512_add_epi32(sum[n], _mm512_madd_epi16(_mm512_cvtepi8_epi16(row), _mm512_loadu_si512(codes[n] + 2 * i)));
            }
        fold(sum, out);
    }
    ADC_INLINE F tagged(F x, std::int64_t number) {
        const __m512i tag = _mm512_set1_epi32(static_cast<int>(number) & (kTagged - 1));
        const __m512i bits = _mm512_andnot_si512(_mm512_set1_epi32(kTagged - 1), _mm512_castps_si512(x));
        return _mm512_castsi512_ps(_mm512_or_si512(bits, tag));
    }
    ADC_INLINE void store_codes(F x, void* codes, std::int64_t column) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<std::int16_t*>(codes) + column),
                            _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
    }
};

#include "bank_kernels_impl.hpp"

template <>
ADC_TARGET void halve_impl<Plain512>(const float* values, const std::uint8_t* order, std::int64_t count, float* out) {
    Floats::halve(values, order, count, out);
}

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
