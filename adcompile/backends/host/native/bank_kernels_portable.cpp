// The kernels in plain C++. Compilers vectorise these loops for the base instruction set.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")  // product and sum must round separately on every machine
#endif

#include "bank_kernels.hpp"

#define ADC_TARGET
#define ADC_INLINE static inline

namespace adc::search {
namespace {

struct Portable {
    using Thin = Portable;
    struct F { float v[16]; };
    struct I { std::int32_t v[16]; };
    struct Bank { const std::int8_t* p; };
    struct Code { std::int32_t c[4]; };
    static constexpr int kProjectQueries = 2, kProjectPanels = 1, kDistanceRows = 1;
    static constexpr int kPairQueries = 1, kPairRows = 1, kTwoRows = 1, kFourQueries = 1, kFourRows = 1, kSorts = 0, kDirectRows = 0, kDirectHalf = 0;
    static constexpr int kTileQueries = 2, kTilePanels = 1, kCodeBytes = 1;

    template <class Op>
    static F map(const F& a, const F& b, Op op) {
        F r;
        for (int i = 0; i < 16; ++i) r.v[i] = op(a.v[i], b.v[i]);
        return r;
    }
    static F kept(const F& x) { return x; }
    static F load(const float* p) { F r; for (int i = 0; i < 16; ++i) r.v[i] = p[i]; return r; }
    static void store(float* p, const F& a) { for (int i = 0; i < 16; ++i) p[i] = a.v[i]; }
    static F set(float x) { F r; for (float& v : r.v) v = x; return r; }
    static F zero() { return set(0.0f); }
    static F add(const F& a, const F& b) { return map(a, b, [](float x, float y) { return x + y; }); }
    static F sub(const F& a, const F& b) { return map(a, b, [](float x, float y) { return x - y; }); }
    static F mul(const F& a, const F& b) { return map(a, b, [](float x, float y) { return x * y; }); }
    static F fused(const F& a, const F& b, const F& c) {
        F r;
        for (int i = 0; i < 16; ++i) r.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
        return r;
    }
    static F min(const F& a, const F& b) { return map(a, b, [](float x, float y) { return x < y ? x : y; }); }
    static F max(const F& a, const F& b) { return map(a, b, [](float x, float y) { return x > y ? x : y; }); }
    static F fma(const F& a, const F& b, const F& c) { return add(mul(a, b), c); }
    static F abs(const F& a) { return map(a, a, [](float x, float) { return x < 0 ? -x : x; }); }
    static F sqrt(const F& a) { return map(a, a, [](float x, float) { return std::sqrt(x); }); }
    static F round(const F& a) {
        // Adding and taking away 1.5·2^23 rounds |x| < 2^22 to the nearest integer.
        return map(a, set(12582912.0f), [](float x, float big) { return (x + big) - big; });
    }
    static unsigned below(const F& a, const F& b) {
        unsigned mask = 0;
        for (int i = 0; i < 16; ++i) mask |= (a.v[i] <= b.v[i] ? 1u : 0u) << i;
        return mask;
    }
    static float sum(const F& a) {
        F r = a;
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) r.v[i] += r.v[i + half];
        return r.v[0];
    }
    static float largest(const F& a) {
        float top = a.v[0];
        for (float v : a.v) top = v > top ? v : top;
        return top;
    }
    static int append(unsigned mask, std::int32_t row, std::int32_t* rows) {
        int n = 0;
        for (int i = 0; i < 16; ++i) {
            rows[n] = row + i;
            n += static_cast<int>(mask >> i & 1u);
        }
        return n;
    }
    static int count(unsigned mask) {
        int n = 0;
        for (; mask != 0; mask &= mask - 1) ++n;
        return n;
    }
    static I start(std::int32_t) { I r; for (std::int32_t& v : r.v) v = 0; return r; }
    static I start(std::int32_t, const I& common) { return common; }
    static std::int32_t bias(const unsigned char*, std::int64_t) { return 0; }
    static void row_dots(const std::int8_t* const (&rows)[4], const unsigned char* codes, std::int64_t columns,
                         std::int32_t* out) {
        const std::int8_t* c = reinterpret_cast<const std::int8_t*>(codes);
        for (int n = 0; n < 4; ++n) {
            out[n] = 0;
            for (std::int64_t i = 0; i < columns; ++i) out[n] += rows[n][i] * c[i];
        }
    }
    static void pair_dots(const std::int8_t* const (&rows)[4], const unsigned char* const (&codes)[4], std::int64_t columns,
                          std::int32_t* out) {
        for (int n = 0; n < 4; ++n) {
            const std::int8_t* c = reinterpret_cast<const std::int8_t*>(codes[n]);
            out[n] = 0;
            for (std::int64_t i = 0; i < columns; ++i) out[n] += rows[n][i] * c[i];
        }
    }
    static F tagged(const F& a, std::int64_t number) {
        return map(a, a, [number](float x, float) {
            std::uint32_t bits;
            std::memcpy(&bits, &x, sizeof bits);
            bits = (bits & ~(kTagged - 1u)) | (static_cast<std::uint32_t>(number) & (kTagged - 1u));
            std::memcpy(&x, &bits, sizeof bits);
            return x;
        });
    }
    static F to_float(const I& a) {
        F r;
        for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(a.v[i]);
        return r;
    }
    static Bank bank(const std::int8_t* p) { return {p}; }
    static Code code(const unsigned char* p) {
        const auto s = [p](int i) { return static_cast<std::int32_t>(static_cast<std::int8_t>(p[i])); };
        return {{s(0), s(1), s(2), s(3)}};
    }
    static I dot(I a, const Bank& b, const Code& c) {
        for (int i = 0; i < 16; ++i)
            a.v[i] += b.p[4 * i] * c.c[0] + b.p[4 * i + 1] * c.c[1] + b.p[4 * i + 2] * c.c[2] +
                      b.p[4 * i + 3] * c.c[3];
        return a;
    }
    static void store_signed(const F& a, std::int8_t* out) {
        for (int i = 0; i < 16; ++i) out[i] = static_cast<std::int8_t>(a.v[i]);
    }
    struct D { double v[16]; };
    static D no_doubles() { return {}; }
    static void add_squares(D& sum, const float* x, const float* y) {
        for (int i = 0; i < 16; ++i) {
            const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
            sum.v[i] += d * d;
        }
    }
    static double sum_doubles(D sum) {
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) sum.v[i] += sum.v[i + half];
        return sum.v[0];
    }
    static void store_codes(const F& a, void* codes, std::int64_t column) {
        store_signed(a, static_cast<std::int8_t*>(codes) + column);
    }
};

#include "bank_kernels_impl.hpp"

}  // namespace

const Kernels* portable_kernels() {
    static const Kernels k = kernels_of<Portable>("portable");
    return &k;
}

}  // namespace adc::search
