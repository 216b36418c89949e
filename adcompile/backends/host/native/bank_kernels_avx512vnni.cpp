// AVX-512 with the dot-product instructions (VNNI).
#include "bank_kernels.hpp"

#include <algorithm>

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

#include "bank_lanes_avx512.hpp"

// The first 8 of 16 rows.
struct Eight {
    using Thin = Eight;
    using F = __m256;
    using I = __m256i;
    using Bank = __m256i;
    using Code = __m256i;
    static constexpr int kCodeBytes = 1;

    ADC_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
    ADC_INLINE void store(float* p, F x) {
        _mm256_storeu_ps(p, x);
        _mm256_storeu_ps(p + 8, _mm256_set1_ps(kFarAway));
    }
    ADC_INLINE F set(float x) { return _mm256_set1_ps(x); }
    ADC_INLINE F mul(F x, F y) { return _mm256_mul_ps(x, y); }
    ADC_INLINE F fma(F x, F y, F z) { return _mm256_fmadd_ps(x, y, z); }
    ADC_INLINE I dot(I s, Bank b, Code c) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(b), "v"(c));
        return s;
    }
    ADC_INLINE Bank bank(const std::int8_t* p) {
        return _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_set1_epi8(-128));
    }
    ADC_INLINE I start(std::int32_t bias) { return _mm256_set1_epi32(bias); }
    ADC_INLINE I start(std::int32_t bias, I common) { return _mm256_add_epi32(common, start(bias)); }
    ADC_INLINE F to_float(I x) { return _mm256_cvtepi32_ps(x); }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t four;
        std::memcpy(&four, p, 4);
        return _mm256_set1_epi32(four);
    }
};

struct Vnni : Floats {
    using Thin = Eight;
    using Lanes = QueryLanes;
    using I = __m512i;
    using Bank = __m512i;
    using Code = __m512i;
    static constexpr int kTileQueries = 12, kTilePanels = 2, kCodeBytes = 1, kDirectHalf = 2;

    // The instruction multiplies unsigned by signed: rows are taken as 128 more than they are, and
    // the sums start with what that adds.
    ADC_INLINE I dot(I s, Bank b, Code c) {
        // Written out: GCC 12 copies and spills the accumulators around the intrinsic.
        __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(b), "v"(c));
        return s;
    }
    ADC_INLINE Bank bank(const std::int8_t* p) {
        return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128));
    }
    ADC_INLINE I start(std::int32_t bias) { return _mm512_set1_epi32(bias); }
    ADC_INLINE I start(std::int32_t bias, I common) { return _mm512_add_epi32(common, start(bias)); }
    ADC_INLINE std::int32_t bias(const unsigned char* codes, std::int64_t count) {
        __m512i sum = _mm512_setzero_si512();
        const __m512i ones = _mm512_set1_epi8(1);
        std::int64_t i = 0;
        for (; i + 64 <= count; i += 64) sum = dot(sum, ones, _mm512_loadu_si512(codes + i));
        const __mmask64 left = (1ull << (count - i)) - 1;
        if (i < count) sum = dot(sum, ones, _mm512_maskz_loadu_epi8(left, codes + i));
        return -128 * _mm512_reduce_add_epi32(sum);
    }
    ADC_INLINE void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                             std::int64_t columns, std::int32_t* out) {
        __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (std::int64_t i = 0; i < columns; i += 64) {
            const __m512i c = _mm512_loadu_si512(codes + i);
            for (int n = 0; n < 4; ++n) sum[n] = dot(sum[n], bank(rows[n] + i), c);
        }
        fold(sum, out);
    }
    ADC_INLINE void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                              std::int64_t columns, std::int32_t* out) {
        __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (std::int64_t i = 0; i < columns; i += 64)
            for (int n = 0; n < 4; ++n) sum[n] = dot(sum[n], bank(rows[n] + i), _mm512_loadu_si512(codes[n] + i));
        fold(sum, out);
    }
    ADC_INLINE F tagged(F x, std::int64_t number) {
        const __m512i tag = _mm512_set1_epi32(static_cast<int>(number) & (kTagged - 1));
        const __m512i bits = _mm512_andnot_si512(_mm512_set1_epi32(kTagged - 1), _mm512_castps_si512(x));
        return _mm512_castsi512_ps(_mm512_or_si512(bits, tag));
    }
    ADC_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t four;
        std::memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }
    ADC_INLINE void store_codes(F x, void* codes, std::int64_t column) {
        store_signed(x, static_cast<std::int8_t*>(codes) + column);
    }
};

#include "bank_kernels_impl.hpp"

template <>
ADC_TARGET void halve_impl<Vnni>(const float* values, const std::uint8_t* order, std::int64_t count, float* out) {
    Floats::halve(values, order, count, out);
}

template <>
ADC_TARGET void ranks_impl<Vnni>(const float* values, int count, std::uint8_t* ranks) {
    for (int first = 0; first < count; first += 16) Floats::ranks(values, count, first, ranks);
}

template <>
ADC_TARGET inline int passing<Vnni>(const BankView& b, const Probe& probe, const std::int32_t (&numbers)[4],
                                    const std::int32_t (&dots)[4], int real, std::int32_t* rows, float* values) {
    const float* terms[4];
    for (int n = 0; n < 4; ++n) terms[n] = b.row_terms + static_cast<std::int64_t>(numbers[n]) * kRowTerms;
    __m128 step = _mm_load_ps(terms[0]), base = _mm_load_ps(terms[1]), error = _mm_load_ps(terms[2]), padding = _mm_load_ps(terms[3]);
    _MM_TRANSPOSE4_PS(step, base, error, padding);
    const __m128i number = _mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers));
    const __m128i dot = _mm_loadu_si128(reinterpret_cast<const __m128i*>(dots));
    const __m128 product = _mm_cvtepi32_ps(_mm_add_epi32(dot, _mm_set1_epi32(probe.bias)));
    const __m128 value = _mm_fmadd_ps(product, _mm_mul_ps(_mm_set1_ps(probe.factor), step), base);
    const __m128 reach = _mm_fmadd_ps(_mm_set1_ps(probe.slope), error, value);
    const __mmask8 near = _mm_cmp_ps_mask(reach, _mm_set1_ps(probe.limit), _CMP_LE_OQ) & ((1u << real) - 1);
    // Compressed in registers: to memory directly is slow on some machines.
    _mm_storeu_si128(reinterpret_cast<__m128i*>(rows), _mm_maskz_compress_epi32(near, number));
    _mm_storeu_ps(values, _mm_maskz_compress_ps(near, value));
    return __builtin_popcount(near);
}

// Of the codes of one vector, before the lanes are summed: squared differences, squared codes, codes, and
// the largest sizes.
struct CodeSums {
    __m512 error0, error1;
    __m512i square, sum, top;
};
ADC_INLINE CodeSums no_codes() {
    const __m512i none = _mm512_setzero_si512();
    return {_mm512_setzero_ps(), _mm512_setzero_ps(), none, none, none};
}
ADC_INLINE __m512 error_of(const CodeSums& s) { return _mm512_add_ps(s.error0, s.error1); }
ADC_INLINE bool in_range(const CodeSums& s) { return _mm512_cmpge_epu8_mask(s.top, _mm512_set1_epi8(127)) == 0; }

// Adds those of the columns from `first` to `end`, 64 at a time, all but the error in integers. Packing
// saturates: what leaves the range of the codes, or is not finite (it becomes the smallest integer), shows
// as a size of 127 or more.
template <bool picked>
ADC_INLINE void codes_of(const BankView& b, const float* shift, const float* x, float factor, std::int64_t first, std::int64_t end,
                         void* codes, CodeSums& out) {
    const __m512 scale = _mm512_set1_ps(factor);
    const __m512i ones = _mm512_set1_epi8(1);
    // The packs work within 128-bit parts: this puts groups of four columns back in order.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512 error0 = out.error0, error1 = out.error1;
    __m512i square = out.square, sum = out.sum, top = out.top;
    alignas(64) float last[64] = {};
    for (std::int64_t i = first; i < end; i += 64) {
        const float* from = x + i;
        if (!picked && i + 64 > b.columns) {
            std::memcpy(last, from, static_cast<std::size_t>(b.columns - i) * sizeof(float));
            from = last;
        }
        __m512i whole[4];
        for (int part = 0; part < 4; ++part) {
            __m512 u;
            if (!picked) {
                u = _mm512_loadu_ps(from + 16 * part);
            } else if (i + 16 * part < b.columns) {
                const float* pair = x + 2 * i + 32 * part;
                const __m512i which = _mm512_loadu_si512(b.picks + i + 16 * part);
                u = _mm512_permutex2var_ps(_mm512_loadu_ps(pair), which, _mm512_loadu_ps(pair + 16));
            } else {
                u = _mm512_setzero_ps();
            }
            const __m512 value = _mm512_fmadd_ps(u, scale, _mm512_loadu_ps(shift + i + 16 * part));
            whole[part] = _mm512_cvtps_epi32(value);
            const __m512 rest = _mm512_sub_ps(value, _mm512_cvtepi32_ps(whole[part]));
            __m512& error = part % 2 == 0 ? error0 : error1;
            error = _mm512_fmadd_ps(rest, rest, error);
        }
        const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(whole[0], whole[1]), _mm512_packs_epi32(whole[2], whole[3]));
        const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
        _mm512_storeu_si512(static_cast<std::int8_t*>(codes) + i, bytes);
        const __m512i sizes = _mm512_abs_epi8(bytes);
        top = _mm512_max_epu8(top, sizes);
        square = Vnni::dot(square, sizes, sizes);
        sum = Vnni::dot(sum, ones, bytes);
    }
    out.error0 = error0, out.error1 = error1;
    out.square = square, out.sum = sum, out.top = top;
}

template <>
ADC_TARGET bool encode_impl<Vnni>(const BankView& b, const float* shift, const float* x, float step, void* codes,
                                  Quantised* out) {
    CodeSums s = no_codes();
    const float factor = b.scale / step;
    if (b.picks != nullptr)
        codes_of<true>(b, shift, x, factor, 0, b.columns, codes, s);
    else
        codes_of<false>(b, shift, x, factor, 0, b.columns, codes, s);
    // Sums of squares: 127² · 65536 columns is below 2^31.
    out->step = step;
    out->error = static_cast<double>(std::sqrt(Floats::sum(error_of(s)))) * step;
    out->square = static_cast<double>(_mm512_reduce_add_epi32(s.square)) * step * step;
    out->bias = -128 * _mm512_reduce_add_epi32(s.sum);
    return in_range(s);
}

// Whether a multiple of 32 floats are the same, bit by bit.
ADC_INLINE bool same(const float* x, const float* y, std::int64_t count) {
    __m512i low = _mm512_setzero_si512(), high = low;
    for (std::int64_t i = 0; i < count; i += 32) {
        low = _mm512_or_si512(low, _mm512_xor_si512(_mm512_loadu_si512(x + i), _mm512_loadu_si512(y + i)));
        high = _mm512_or_si512(high, _mm512_xor_si512(_mm512_loadu_si512(x + i + 16), _mm512_loadu_si512(y + i + 16)));
    }
    const __m512i any = _mm512_or_si512(low, high);
    return _mm512_test_epi32_mask(any, any) == 0;
}

template <bool picked>
ADC_TARGET unsigned encode_tile_vnni(const BankView& b, const float* shift, const float* const* x, const NearLimits& limits, void* codes,
                                     NearTile& near) {
    unsigned good = 0;
    float error[kLanes] = {}, unused[4];
    std::int32_t square[kLanes] = {}, sum[kLanes] = {};
    const float scale = b.scale / limits.step;
    const std::int64_t shared = near.in_fours() ? (picked ? near.shared / 2 : near.shared) : b.columns;
    for (int first = 0; first < near.count; first += 4) {
        __m512 errors[4];
        __m512i squares[4], sums[4];
        const int last = std::min(first + 4, near.count);
        for (int i = last - first; i < 4; ++i) {
            errors[i] = _mm512_setzero_ps();
            squares[i] = sums[i] = _mm512_setzero_si512();
        }
        CodeSums common = no_codes();
        std::int8_t* own = static_cast<std::int8_t*>(codes) + first * b.code_stride;
        if (near.in_fours()) {
            codes_of<picked>(b, shift, x[first], scale, shared, b.columns, own, common);
            for (int t = 1; t < kFour; ++t)
                std::memcpy(own + t * b.code_stride + shared, own + shared, static_cast<std::size_t>(b.code_stride - shared));
        }
        for (int t = first; t < last; ++t, own += b.code_stride) {
            CodeSums s = common;
            codes_of<picked>(b, shift, x[t], scale, 0, shared, own, s);
            const bool compared = t > first && near.in_fours();
            if (compared && !same(x[t] + near.shared, x[first] + near.shared, near.stride - near.shared)) near.shared = near.stride;
            if (in_range(s)) good |= 1u << t;
            errors[t - first] = error_of(s);
            squares[t - first] = s.square;
            sums[t - first] = s.sum;
        }
        Floats::sums(errors, errors, error + first, unused);
        Floats::fold(squares, square + first);
        Floats::fold(sums, sum + first);
    }
    const __m512 squared = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(square)), _mm512_set1_ps(limits.step * limits.step));
    const __m512 computed = _mm512_mul_ps(_mm512_sqrt_ps(_mm512_loadu_ps(error)), _mm512_set1_ps(limits.error_scale));
    const __m512 length = _mm512_fmadd_ps(_mm512_add_ps(squared, _mm512_set1_ps(1)), _mm512_set1_ps(0.5f), computed);
    const __m512 bound = _mm512_fmadd_ps(length, _mm512_set1_ps(limits.error_per_length), _mm512_add_ps(computed, _mm512_set1_ps(limits.shift_error)));
    _mm512_storeu_ps(near.square, squared);
    _mm512_storeu_ps(near.error, _mm512_mul_ps(bound, _mm512_set1_ps(1 + 1e-6f)));
    _mm512_storeu_si512(near.bias, _mm512_mullo_epi32(_mm512_loadu_si512(sum), _mm512_set1_epi32(-128)));
    return good;
}

template <>
ADC_TARGET unsigned encode_tile_impl<Vnni>(const BankView& b, const float* shift, const float* const* x, const NearLimits& limits,
                                           void* codes, NearTile& near) {
    return b.picks != nullptr ? encode_tile_vnni<true>(b, shift, x, limits, codes, near)
                              : encode_tile_vnni<false>(b, shift, x, limits, codes, near);
}

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
