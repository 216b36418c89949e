// AVX2 and FMA (x86-64 since 2013).
#include "bank_kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define ADC_TARGET __attribute__((target("avx2,fma")))
#define ADC_INLINE __attribute__((always_inline, target("avx2,fma"))) static inline

namespace adc::search {
namespace {

struct Avx2 {
    using Thin = Avx2;
    struct F { __m256 a, b; };
    struct I { __m256i a, b; };
    struct Bank { __m256i a, b; };
    struct Code { __m256i signs, sizes; };
    static constexpr int kProjectQueries = 6, kProjectPanels = 1, kDistanceRows = 3;
    static constexpr int kPairQueries = 1, kPairRows = 3, kTwoRows = 1, kFourQueries = 2, kFourRows = 1, kSorts = 0, kDirectRows = 5, kDirectHalf = 5;
    static constexpr int kTileQueries = 4, kTilePanels = 1, kCodeBytes = 1;

    ADC_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    ADC_INLINE F kept(F x) { return x; }
    ADC_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
    ADC_INLINE F set(float x) { const __m256 v = _mm256_set1_ps(x); return {v, v}; }
    ADC_INLINE F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    ADC_INLINE F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
    ADC_INLINE F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
    ADC_INLINE F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
    ADC_INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
    ADC_INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
    ADC_INLINE F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
    ADC_INLINE F fused(F x, F y, F z) { return fma(x, y, z); }
    ADC_INLINE F abs(F x) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
    }
    ADC_INLINE F sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
    ADC_INLINE F round(F x) {
        return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    ADC_INLINE unsigned below(F x, F y) {
        const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ));
        const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ));
        return static_cast<unsigned>(low | high << 8);
    }
    ADC_INLINE float sum(F x) {
        const __m256 t = _mm256_add_ps(x.a, x.b);
        const __m128 q = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
        const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
        return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
    }
    ADC_INLINE float largest(F x) {
        const __m256 t = _mm256_max_ps(x.a, x.b);
        const __m128 q = _mm_max_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
        const __m128 p = _mm_max_ps(q, _mm_movehl_ps(q, q));
        return _mm_cvtss_f32(_mm_max_ss(p, _mm_movehdup_ps(p)));
    }
    ADC_INLINE int append(unsigned mask, std::int32_t row, std::int32_t* rows) {
        int n = 0;
        for (; mask != 0; mask &= mask - 1, ++n) rows[n] = row + __builtin_ctz(mask);
        return n;
    }
    ADC_INLINE int count(unsigned mask) { return __builtin_popcount(mask); }
    ADC_INLINE I start(std::int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    ADC_INLINE I start(std::int32_t, I common) { return common; }
    ADC_INLINE std::int32_t bias(const unsigned char*, std::int64_t) { return 0; }
    ADC_INLINE F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
    ADC_INLINE F tagged(F x, std::int64_t number) {
        const __m256 last = _mm256_castsi256_ps(_mm256_set1_epi32(kTagged - 1));
        const __m256 tag = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(number) & (kTagged - 1)));
        return {_mm256_or_ps(_mm256_andnot_ps(last, x.a), tag), _mm256_or_ps(_mm256_andnot_ps(last, x.b), tag)};
    }
    ADC_INLINE Bank bank(const std::int8_t* p) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
    }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t four;
        std::memcpy(&four, p, 4);
        const __m256i c = _mm256_set1_epi32(four);
        return {c, _mm256_abs_epi8(c)};
    }
    // |code| times the row with the code's sign: pairs stay within 2 · 127², so nothing saturates.
    ADC_INLINE __m256i products(__m256i row, const Code& c) {
        const __m256i pairs = _mm256_maddubs_epi16(c.sizes, _mm256_sign_epi8(row, c.signs));
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    ADC_INLINE I dot(I s, const Bank& b, const Code& c) {
        return {_mm256_add_epi32(s.a, products(b.a, c)), _mm256_add_epi32(s.b, products(b.b, c))};
    }
    ADC_INLINE void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                             std::int64_t columns, std::int32_t* out) {
        __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (std::int64_t i = 0; i < columns; i += 32) {
            const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
            const Code both = {c, _mm256_abs_epi8(c)};
            for (int n = 0; n < 4; ++n) {
                const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[n] + i));
                s[n] = _mm256_add_epi32(s[n], products(row, both));
            }
        }
        fold(s, out);
    }
    ADC_INLINE void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                              std::int64_t columns, std::int32_t* out) {
        __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (std::int64_t i = 0; i < columns; i += 32)
            for (int n = 0; n < 4; ++n) {
                const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes[n] + i));
                const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[n] + i));
                s[n] = _mm256_add_epi32(s[n], products(row, {c, _mm256_abs_epi8(c)}));
            }
        fold(s, out);
    }
    // The sums of four registers.
    ADC_INLINE void fold(const __m256i (&s)[4], std::int32_t* out) {
        const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
        const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), sum);
    }
    struct D { __m256d v[4]; };
    ADC_INLINE D no_doubles() {
        const __m256d z = _mm256_setzero_pd();
        return {{z, z, z, z}};
    }
    ADC_INLINE void add_squares(D& sum, const float* x, const float* y) {
        for (int i = 0; i < 4; ++i) {
            const __m256d d = _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(x + 4 * i)),
                                            _mm256_cvtps_pd(_mm_loadu_ps(y + 4 * i)));
            __m256d square = _mm256_mul_pd(d, d);
            __asm__("" : "+x"(square));
            sum.v[i] = _mm256_add_pd(sum.v[i], square);
        }
    }
    ADC_INLINE double sum_doubles(const D& s) {
        const __m256d t = _mm256_add_pd(_mm256_add_pd(s.v[0], s.v[2]), _mm256_add_pd(s.v[1], s.v[3]));
        const __m128d p = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
        return _mm_cvtsd_f64(_mm_add_sd(p, _mm_unpackhi_pd(p, p)));
    }
    ADC_INLINE void store_codes(F x, void* codes, std::int64_t column) {
        store_signed(x, static_cast<std::int8_t*>(codes) + column);
    }
    ADC_INLINE void store_signed(F x, std::int8_t* out) {
        // packs works within 128-bit halves, the permutation puts the columns back in order.
        const __m256i wide = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
        const __m256i line = _mm256_permute4x64_epi64(wide, 0xD8);
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(line), _mm256_extracti128_si256(line, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    }
};

#include "bank_kernels_impl.hpp"

}  // namespace

const Kernels* avx2_kernels() {
    static const Kernels k = kernels_of<Avx2>("avx2");
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &k : nullptr;
}

}  // namespace adc::search
#else
namespace adc::search {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace adc::search
#endif
