// 64-bit Arm: NEON, and NEON with the dot-product instructions (Cortex-A55, A75 and later).
#include "bank_kernels.hpp"

#if defined(__GNUC__) && defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#define ADC_TARGET
#define ADC_INLINE __attribute__((always_inline)) static inline

// GCC takes the instruction in any build; Clang only where -march names it (armv8.2-a+dotprod).
#if !defined(__clang__) || defined(__ARM_FEATURE_DOTPROD)
#define ADC_HAS_SDOT 1
#define ADC_SDOT_ARCH ".arch armv8.2-a+dotprod\n\t"
#else
#define ADC_HAS_SDOT 0
#endif

namespace adc::search {
namespace {

struct Floats {
    struct F { float32x4_t v[4]; };
    static constexpr int kProjectQueries = 4, kProjectPanels = 1, kDistanceRows = 1;
    static constexpr int kPairQueries = 1, kPairRows = 1, kTwoRows = 1, kFourQueries = 2, kFourRows = 1, kSorts = 0, kDirectRows = 0, kDirectHalf = 0;

    template <class Op>
    ADC_INLINE F map(const F& x, const F& y, Op op) {
        return {{op(x.v[0], y.v[0]), op(x.v[1], y.v[1]), op(x.v[2], y.v[2]), op(x.v[3], y.v[3])}};
    }
    ADC_INLINE F load(const float* p) {
        return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
    }
    ADC_INLINE F kept(const F& x) { return x; }
    ADC_INLINE void store(float* p, const F& x) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
    }
    ADC_INLINE F set(float x) { const float32x4_t v = vdupq_n_f32(x); return {{v, v, v, v}}; }
    ADC_INLINE F zero() { return set(0.0f); }
    ADC_INLINE F add(const F& x, const F& y) { return map(x, y, [](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }); }
    ADC_INLINE F sub(const F& x, const F& y) { return map(x, y, [](float32x4_t a, float32x4_t b) { return vsubq_f32(a, b); }); }
    ADC_INLINE F mul(const F& x, const F& y) { return map(x, y, [](float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }); }
    ADC_INLINE F min(const F& x, const F& y) { return map(x, y, [](float32x4_t a, float32x4_t b) { return vminq_f32(a, b); }); }
    ADC_INLINE F max(const F& x, const F& y) { return map(x, y, [](float32x4_t a, float32x4_t b) { return vmaxq_f32(a, b); }); }
    ADC_INLINE F fma(const F& x, const F& y, const F& z) {
        F r;
        for (int i = 0; i < 4; ++i) r.v[i] = vfmaq_f32(z.v[i], x.v[i], y.v[i]);
        return r;
    }
    ADC_INLINE F fused(const F& x, const F& y, const F& z) { return fma(x, y, z); }
    ADC_INLINE F abs(const F& x) { return map(x, x, [](float32x4_t a, float32x4_t) { return vabsq_f32(a); }); }
    ADC_INLINE F sqrt(const F& x) { return map(x, x, [](float32x4_t a, float32x4_t) { return vsqrtq_f32(a); }); }
    ADC_INLINE F round(const F& x) { return map(x, x, [](float32x4_t a, float32x4_t) { return vrndnq_f32(a); }); }
    ADC_INLINE unsigned below(const F& x, const F& y) {
        const uint32x4_t bit = {1, 2, 4, 8};
        unsigned mask = 0;
        for (int i = 0; i < 4; ++i)
            mask |= vaddvq_u32(vandq_u32(vcleq_f32(x.v[i], y.v[i]), bit)) << (4 * i);
        return mask;
    }
    ADC_INLINE float sum(const F& x) {
        const float32x4_t even = vaddq_f32(x.v[0], x.v[2]), odd = vaddq_f32(x.v[1], x.v[3]);
        const float32x4_t q = vaddq_f32(even, odd);
        const float32x2_t p = vadd_f32(vget_low_f32(q), vget_high_f32(q));
        return vget_lane_f32(p, 0) + vget_lane_f32(p, 1);
    }
    ADC_INLINE float largest(const F& x) {
        return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
    }
    ADC_INLINE int append(unsigned mask, std::int32_t row, std::int32_t* rows) {
        int n = 0;
        for (; mask != 0; mask &= mask - 1, ++n) rows[n] = row + __builtin_ctz(mask);
        return n;
    }
    ADC_INLINE int count(unsigned mask) { return __builtin_popcount(mask); }
    struct D { float64x2_t v[8]; };
    ADC_INLINE D no_doubles() {
        D r;
        for (float64x2_t& v : r.v) v = vdupq_n_f64(0.0);
        return r;
    }
    ADC_INLINE void add_squares(D& sum, const float* x, const float* y) {
        for (int i = 0; i < 8; ++i) {
            const float64x2_t d = vsubq_f64(vcvt_f64_f32(vld1_f32(x + 2 * i)), vcvt_f64_f32(vld1_f32(y + 2 * i)));
            float64x2_t square = vmulq_f64(d, d);
            __asm__("" : "+w"(square));
            sum.v[i] = vaddq_f64(sum.v[i], square);
        }
    }
    ADC_INLINE double sum_doubles(const D& s) {
        const float64x2_t a = vaddq_f64(vaddq_f64(s.v[0], s.v[4]), vaddq_f64(s.v[2], s.v[6]));
        const float64x2_t b = vaddq_f64(vaddq_f64(s.v[1], s.v[5]), vaddq_f64(s.v[3], s.v[7]));
        const float64x2_t p = vaddq_f64(a, b);
        return vgetq_lane_f64(p, 0) + vgetq_lane_f64(p, 1);
    }
    ADC_INLINE void store_codes(const F& x, void* codes, std::int64_t column) {
        store_signed(x, static_cast<std::int8_t*>(codes) + column);
    }
    ADC_INLINE void store_signed(const F& x, std::int8_t* out) {
        int16x4_t half[4];
        for (int i = 0; i < 4; ++i) half[i] = vmovn_s32(vcvtnq_s32_f32(x.v[i]));
        const int8x8_t low = vmovn_s16(vcombine_s16(half[0], half[1]));
        const int8x8_t high = vmovn_s16(vcombine_s16(half[2], half[3]));
        vst1q_s8(out, vcombine_s8(low, high));
    }
    ADC_INLINE F tagged(const F& x, std::int64_t number) {
        const uint32x4_t rest = vdupq_n_u32(~(kTagged - 1u)), tag = vdupq_n_u32(static_cast<std::uint32_t>(number) & (kTagged - 1u));
        F r;
        for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_f32_u32(vorrq_u32(vandq_u32(vreinterpretq_u32_f32(x.v[i]), rest), tag));
        return r;
    }
    struct Bank { int8x16_t v[4]; };
    using Code = int8x16_t;
    ADC_INLINE Bank bank(const std::int8_t* p) {
        return {{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}};
    }
    ADC_INLINE Code code(const unsigned char* p) {
        std::int32_t four;
        std::memcpy(&four, p, 4);
        return vreinterpretq_s8_s32(vdupq_n_s32(four));
    }
};

// The sums of four rows.
template <class V>
ADC_INLINE void fold(const typename V::I& sum, std::int32_t* out) {
    constexpr int per_row = sizeof(sum.v) / sizeof(sum.v[0]) / 4;
    for (int n = 0; n < 4; ++n) {
        out[n] = 0;
        for (int part = 0; part < per_row; ++part) out[n] += vaddvq_s32(sum.v[per_row * n + part]);
    }
}

// Four products of `columns` columns by V's dot of a register of 16 columns at a time.
template <class V>
ADC_INLINE void row_dots_of(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                            std::int64_t columns, std::int32_t* out) {
    typename V::I sum = V::start(0);
    for (std::int64_t i = 0; i < columns; i += 16) {
        const int8x16_t c = vld1q_s8(reinterpret_cast<const std::int8_t*>(codes) + i);
        const typename V::Bank four = {{vld1q_s8(rows[0] + i), vld1q_s8(rows[1] + i),
                                        vld1q_s8(rows[2] + i), vld1q_s8(rows[3] + i)}};
        sum = V::dot(sum, four, c);
    }
    fold<V>(sum, out);
}

// The same, each row with codes of its own.
template <class V>
ADC_INLINE void pair_dots_of(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                             std::int64_t columns, std::int32_t* out) {
    typename V::I sum = V::start(0);
    for (std::int64_t i = 0; i < columns; i += 16)
        for (int n = 0; n < 4; ++n)
            V::add_dot(sum, n, vld1q_s8(rows[n] + i), vld1q_s8(reinterpret_cast<const std::int8_t*>(codes[n]) + i));
    fold<V>(sum, out);
}

struct Neon : Floats {
    using Thin = Neon;
    struct I { int32x4_t v[8]; };  // two half sums per row
    static constexpr int kTileQueries = 2, kTilePanels = 1, kCodeBytes = 1;

    ADC_INLINE I start(std::int32_t, const I& common) { return common; }
    ADC_INLINE I start(std::int32_t) {
        I r;
        for (int32x4_t& v : r.v) v = vdupq_n_s32(0);
        return r;
    }
    ADC_INLINE F to_float(const I& x) {
        F r;
        for (int i = 0; i < 4; ++i)
            r.v[i] = vcvtq_f32_s32(vpaddq_s32(x.v[2 * i], x.v[2 * i + 1]));
        return r;
    }
    ADC_INLINE void add_dot(I& s, int i, int8x16_t row, Code c) {
        s.v[2 * i] = vpadalq_s16(s.v[2 * i], vmull_s8(vget_low_s8(row), vget_low_s8(c)));
        s.v[2 * i + 1] = vpadalq_s16(s.v[2 * i + 1], vmull_high_s8(row, c));
    }
    ADC_INLINE I dot(I s, const Bank& b, Code c) {
        for (int i = 0; i < 4; ++i) add_dot(s, i, b.v[i], c);
        return s;
    }
    ADC_INLINE std::int32_t bias(const unsigned char*, std::int64_t) { return 0; }
    ADC_INLINE void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                             std::int64_t columns, std::int32_t* out) {
        row_dots_of<Neon>(rows, codes, columns, out);
    }
    ADC_INLINE void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                              std::int64_t columns, std::int32_t* out) {
        pair_dots_of<Neon>(rows, codes, columns, out);
    }
};

#if ADC_HAS_SDOT
struct NeonDot : Floats {
    using Thin = NeonDot;
    struct I { int32x4_t v[4]; };
    static constexpr int kTileQueries = 5, kTilePanels = 1, kCodeBytes = 1;

    ADC_INLINE I start(std::int32_t, const I& common) { return common; }
    ADC_INLINE I start(std::int32_t) {
        I r;
        for (int32x4_t& v : r.v) v = vdupq_n_s32(0);
        return r;
    }
    ADC_INLINE F to_float(const I& x) {
        F r;
        for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(x.v[i]);
        return r;
    }
    ADC_INLINE void add_dot(I& s, int i, int8x16_t row, Code c) {
        __asm__(ADC_SDOT_ARCH "sdot %0.4s, %1.16b, %2.16b" : "+w"(s.v[i]) : "w"(row), "w"(c));
    }
    ADC_INLINE I dot(I s, const Bank& b, Code c) {
        for (int i = 0; i < 4; ++i) add_dot(s, i, b.v[i], c);
        return s;
    }
    ADC_INLINE std::int32_t bias(const unsigned char*, std::int64_t) { return 0; }
    ADC_INLINE void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes,
                             std::int64_t columns, std::int32_t* out) {
        row_dots_of<NeonDot>(rows, codes, columns, out);
    }
    ADC_INLINE void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4],
                              std::int64_t columns, std::int32_t* out) {
        pair_dots_of<NeonDot>(rows, codes, columns, out);
    }
};
#endif

#include "bank_kernels_impl.hpp"

#if ADC_HAS_SDOT
bool has_dot_product() {
#if defined(__linux__)
    constexpr unsigned long asimddp = 1ul << 20;
    return (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__APPLE__)
    return true;
#else
    return false;
#endif
}
#endif

}  // namespace

const Kernels* neon_kernels() {
    static const Kernels k = kernels_of<Neon>("neon");
    return &k;
}

const Kernels* neondot_kernels() {
#if ADC_HAS_SDOT
    static const Kernels k = kernels_of<NeonDot>("neondot");
    return has_dot_product() ? &k : nullptr;
#else
    return nullptr;
#endif
}

}  // namespace adc::search
#else
namespace adc::search {
const Kernels* neon_kernels() { return nullptr; }
const Kernels* neondot_kernels() { return nullptr; }
}  // namespace adc::search
#endif
