// 16 floats in one AVX-512 register: the part the two AVX-512 kernel sets share. Included after
// ADC_INLINE is defined, inside an unnamed namespace.
struct Floats {
    using F = __m512;
    static constexpr int kProjectQueries = 6, kProjectPanels = 4, kDistanceRows = 5;
    static constexpr int kPairQueries = 3, kPairRows = 4, kTwoRows = 4, kFourQueries = 4, kFourRows = 2, kSorts = 1, kDirectRows = 5;

    ADC_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
    ADC_INLINE F kept(F x) {
        __asm__("" : "+v"(x));
        return x;
    }
    ADC_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    ADC_INLINE F set(float x) { return _mm512_set1_ps(x); }
    ADC_INLINE F zero() { return _mm512_setzero_ps(); }
    ADC_INLINE F add(F x, F y) { return _mm512_add_ps(x, y); }
    ADC_INLINE F sub(F x, F y) { return _mm512_sub_ps(x, y); }
    ADC_INLINE F mul(F x, F y) { return _mm512_mul_ps(x, y); }
    ADC_INLINE F min(F x, F y) { return _mm512_min_ps(x, y); }
    ADC_INLINE F max(F x, F y) { return _mm512_max_ps(x, y); }
    ADC_INLINE F fma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
    ADC_INLINE F fused(F x, F y, F z) { return fma(x, y, z); }
    ADC_INLINE F abs(F x) { return _mm512_abs_ps(x); }
    ADC_INLINE F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    ADC_INLINE unsigned below(F x, F y) { return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ); }
    ADC_INLINE float sum(F x) {
        const __m256 t = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
        const __m128 q = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
        const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
        return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
    }
    ADC_INLINE F sqrt(F x) { return _mm512_sqrt_ps(x); }
    ADC_INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }
    ADC_INLINE int append(unsigned mask, std::int32_t row, std::int32_t* rows) {
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(row));
        _mm512_storeu_si512(rows, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), numbers));
        return __builtin_popcount(mask);
    }
    ADC_INLINE void store_signed(F x, std::int8_t* out) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
    }
    struct D { __m512d low, high; };
    ADC_INLINE D no_doubles() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
    ADC_INLINE __m512d square(const float* x, const float* y) {
        const __m512d d = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x)), _mm512_cvtps_pd(_mm256_loadu_ps(y)));
        __m512d r = _mm512_mul_pd(d, d);
        __asm__("" : "+v"(r));
        return r;
    }
    ADC_INLINE void add_squares(D& sum, const float* x, const float* y) {
        sum.low = _mm512_add_pd(sum.low, square(x, y));
        sum.high = _mm512_add_pd(sum.high, square(x + 8, y + 8));
    }
    ADC_INLINE double sum_doubles(const D& s) {
        const __m512d t = _mm512_add_pd(s.low, s.high);
        const __m256d q = _mm256_add_pd(_mm512_castpd512_pd256(t), _mm512_extractf64x4_pd(t, 1));
        const __m128d p = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
        return _mm_cvtsd_f64(_mm_add_sd(p, _mm_unpackhi_pd(p, p)));
    }
    ADC_INLINE int count(unsigned mask) { return __builtin_popcount(mask); }
    // Ranks of 16 values among `count`: how many are less, or equal and earlier.
    ADC_INLINE void ranks(const float* values, int count, int first, std::uint8_t* out) {
        const __m512 value = _mm512_loadu_ps(values + first);
        const __m512i one = _mm512_set1_epi32(1);
        __m512i rank = _mm512_setzero_si512();
        for (int i = 0; i < count; ++i) {
            const __m512 other = _mm512_set1_ps(values[i]);
            const unsigned later = i < first ? 0xffffu : i < first + 15 ? 0xfffeu << (i - first) : 0;
            const unsigned before = _mm512_cmp_ps_mask(other, value, _CMP_LT_OQ) | (_mm512_cmp_ps_mask(other, value, _CMP_EQ_OQ) & later);
            rank = _mm512_mask_add_epi32(rank, static_cast<__mmask16>(before), rank, one);
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + first), _mm512_cvtepi32_epi8(rank));
    }
    ADC_INLINE void halve(const float* values, const std::uint8_t* order, std::int64_t count, float* out) {
        for (std::int64_t i = 0; i < count; i += 32) {
            const __m512 low = _mm512_loadu_ps(values + i), high = _mm512_loadu_ps(values + i + 16);
            for (int part = 0; part < 2; ++part) {
                const __m128i which = _mm_loadu_si128(reinterpret_cast<const __m128i*>(order + i + 16 * part));
                _mm512_storeu_ps(out + (part * count + i) / 2, _mm512_permutex2var_ps(low, _mm512_cvtepu8_epi32(which), high));
            }
        }
    }
    // A network that puts 16 lanes in ascending order: each step compares every lane with one other.
    // `upper`: the lanes that keep the greater value.
    struct Keys {
        F key;
        ADC_INLINE void exchange(Keys& own, const Keys& other, __mmask16 upper) {
            own.key = _mm512_mask_max_ps(_mm512_min_ps(own.key, other.key), upper, own.key, other.key);
        }
        template <int pattern>
        ADC_INLINE Keys within_four(const Keys& own) { return {_mm512_permute_ps(own.key, pattern)}; }
        ADC_INLINE Keys across(const Keys& own, __m512i with) { return {_mm512_permutexvar_ps(with, own.key)}; }
    };
    // Keys with numbers.
    struct Numbered {
        F key;
        __m512i number;
        ADC_INLINE void exchange(Numbered& own, const Numbered& other, __mmask16 upper) {
            const F key = _mm512_mask_max_ps(_mm512_min_ps(own.key, other.key), upper, own.key, other.key);
            own.number = _mm512_mask_mov_epi32(own.number, _mm512_cmp_ps_mask(key, own.key, _CMP_NEQ_UQ), other.number);
            own.key = key;
        }
        template <int pattern>
        ADC_INLINE Numbered within_four(const Numbered& own) {
            return {_mm512_permute_ps(own.key, pattern), _mm512_shuffle_epi32(own.number, static_cast<_MM_PERM_ENUM>(pattern))};
        }
        ADC_INLINE Numbered across(const Numbered& own, __m512i with) {
            return {_mm512_permutexvar_ps(with, own.key), _mm512_permutexvar_epi32(with, own.number)};
        }
    };
    template <class K>
    ADC_INLINE void sort(K& x) {
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        K::exchange(x, K::template within_four<0xB1>(x), 0xAAAA);
        K::exchange(x, K::template within_four<0x1B>(x), 0xCCCC);
        K::exchange(x, K::template within_four<0xB1>(x), 0xAAAA);
        K::exchange(x, K::across(x, _mm512_xor_si512(lanes, _mm512_set1_epi32(7))), 0xF0F0);
        K::exchange(x, K::template within_four<0x4E>(x), 0xCCCC);
        K::exchange(x, K::template within_four<0xB1>(x), 0xAAAA);
        K::exchange(x, K::across(x, _mm512_xor_si512(lanes, _mm512_set1_epi32(15))), 0xFF00);
        K::exchange(x, K::across(x, _mm512_xor_si512(lanes, _mm512_set1_epi32(4))), 0xF0F0);
        K::exchange(x, K::template within_four<0x4E>(x), 0xCCCC);
        K::exchange(x, K::template within_four<0xB1>(x), 0xAAAA);
    }
    ADC_INLINE float kth(F values, int k) {
        Keys keys{values};
        sort(keys);
        return _mm512_cvtss_f32(_mm512_permutexvar_ps(_mm512_set1_epi32(k - 1), keys.key));
    }
    // Kernels::in_order of up to 4 rows, for the nearest alone.
    ADC_INLINE bool nearest_of_four(NearTile& near, int t, const NearLimits& limits) {
        const unsigned listed = (1u << near.found[t]) - 1;
        const __m128 infinity = _mm_set1_ps(std::numeric_limits<float>::infinity());
        const __m128 key = _mm_mask_loadu_ps(infinity, static_cast<__mmask8>(listed), near.distances[t]);
        const unsigned sound = _mm_cmp_ps_mask(key, _mm_set1_ps(limits.smallest), _CMP_GE_OQ) &
                               _mm_cmp_ps_mask(key, _mm_set1_ps(limits.largest), _CMP_LE_OQ);
        near.kth[t] = std::numeric_limits<float>::infinity();
        if ((listed & ~sound) != 0) return false;
        const __m128 two = _mm_min_ps(key, _mm_permute_ps(key, 0xB1)), least = _mm_min_ps(two, _mm_permute_ps(two, 0x4E));
        const unsigned at = _mm_cmp_ps_mask(key, least, _CMP_EQ_OQ);
        const unsigned apart = _mm_cmp_ps_mask(_mm_mul_ps(least, _mm_set1_ps(limits.apart)), key, _CMP_LT_OQ);
        near.kth[t] = near.sorted[t][0] = _mm_cvtss_f32(least);
        near.sorted_rows[t][0] = near.rows[t / 2][__builtin_ctz(at)];
        return (apart | (at & -at)) == 0xf;
    }
    // Kernels::in_order of up to 16 rows.
    ADC_INLINE bool in_order(NearTile& near, int t, int k, const NearLimits& limits) {
        if (k == 1 && near.found[t] <= 4) return nearest_of_four(near, t, limits);
        const unsigned listed = (1u << near.found[t]) - 1;
        const F infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
        Numbered x{_mm512_mask_loadu_ps(infinity, static_cast<__mmask16>(listed), near.distances[t]), _mm512_loadu_si512(near.rows[t / 2])};
        const unsigned sound = _mm512_cmp_ps_mask(x.key, _mm512_set1_ps(limits.smallest), _CMP_GE_OQ) &
                               _mm512_cmp_ps_mask(x.key, _mm512_set1_ps(limits.largest), _CMP_LE_OQ);
        near.kth[t] = std::numeric_limits<float>::infinity();
        if ((listed & ~sound) != 0) return false;
        if (k == 1) {
            const float least = -largest(sub(zero(), x.key));
            const unsigned at = _mm512_cmp_ps_mask(x.key, _mm512_set1_ps(least), _CMP_EQ_OQ);
            const unsigned apart = _mm512_cmp_ps_mask(_mm512_set1_ps(least * limits.apart), x.key, _CMP_LT_OQ);
            near.kth[t] = near.sorted[t][0] = least;
            near.sorted_rows[t][0] = near.rows[t / 2][__builtin_ctz(at)];
            return (apart | (at & -at)) == 0xffff;
        }
        sort(x);
        const F next = _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(infinity), _mm512_castps_si512(x.key), 1));
        const unsigned clear = _mm512_cmp_ps_mask(_mm512_mul_ps(x.key, _mm512_set1_ps(limits.apart)), next, _CMP_LT_OQ);
        _mm512_storeu_ps(near.sorted[t], x.key);
        _mm512_storeu_si512(near.sorted_rows[t], x.number);
        near.kth[t] = near.sorted[t][k - 1];
        return (~clear & ((1u << k) - 1)) == 0;
    }
    // Sums, in the order of `sum`, of the lanes of eight registers: four of one query, four of another.
    // Half registers from the first step on: with whole ones half of each would be computed in vain.
    ADC_INLINE __m256 halves(F x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
    ADC_INLINE __m256 quarters(F x, F y) {
        const __m256 a = halves(x), b = halves(y);
        return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    ADC_INLINE __m256 pairs(__m256 x, __m256 y) {
        return _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xEE));
    }
    ADC_INLINE void sums(const F* first, const F* second, float* out, float* other) {
        const __m256 x = pairs(quarters(first[0], second[0]), quarters(first[1], second[1]));
        const __m256 y = pairs(quarters(first[2], second[2]), quarters(first[3], second[3]));
        const __m256 all = _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xDD));
        _mm_storeu_ps(out, _mm256_castps256_ps128(all));
        _mm_storeu_ps(other, _mm256_extractf128_ps(all, 1));
    }
    // Sums of the lanes of four registers.
    ADC_INLINE void fold(const __m512i (&s)[4], std::int32_t* out) {
        const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
        const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
        const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
        const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), sum);
    }
};
