// Up to 16 queries at once, one in each lane of AVX-512 registers: 16 values of each are put in order by
// comparing whole registers, which costs a few instructions for each query. Included after
// bank_floats_avx512.hpp, on the same terms.
struct Step {
    int low, high;
};
constexpr int kSteps = 63;
struct Network {
    Step step[kSteps];
};
// Batcher's merge exchange of 16 values (Knuth, volume 3, algorithm 5.2.2M).
constexpr Network merge_exchange() {
    Network n = {};
    int count = 0;
    for (int p = kLanes / 2; p > 0; p /= 2) {
        int r = 0, d = p;
        for (int q = kLanes / 2;; d = q - p, q /= 2, r = p) {
            for (int i = 0; i + d < kLanes; ++i)
                if ((i & p) == r) n.step[count++] = {i, i + d};
            if (q == p) break;
        }
    }
    return n;
}
constexpr Network kNetwork = merge_exchange();

struct QueryLanes {
    using F = __m512;

    struct AsFloats {
        ADC_INLINE F min(F x, F y) { return _mm512_min_ps(x, y); }
        ADC_INLINE F max(F x, F y) { return _mm512_max_ps(x, y); }
    };
    // Of positive floats the same order, which has a place for what is not a number too.
    struct AsIntegers {
        ADC_INLINE F min(F x, F y) { return _mm512_castsi512_ps(_mm512_min_epi32(_mm512_castps_si512(x), _mm512_castps_si512(y))); }
        ADC_INLINE F max(F x, F y) { return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(x), _mm512_castps_si512(y))); }
    };
    template <class Order, int low, int high>
    ADC_INLINE void exchange(F (&x)[kLanes]) {
        const F least = Order::min(x[low], x[high]);
        x[high] = Order::max(x[low], x[high]);
        x[low] = least;
    }
    template <class Order, int... n>
    ADC_INLINE void sort(Pack<n...>, F (&x)[kLanes]) {
        (exchange<Order, kNetwork.step[n].low, kNetwork.step[n].high>(x), ...);
    }
    template <class Order>
    ADC_INLINE void sort(F (&x)[kLanes]) { sort<Order>(Count<kSteps>(), x); }
    template <class Order, int d, int... n>
    ADC_INLINE void half_clean(Pack<n...>, F (&x)[kLanes]) {
        (exchange<Order, n / d * 2 * d + n % d, n / d * 2 * d + n % d + d>(x), ...);
    }
    template <class Order, int... n>
    ADC_INLINE void least_of(Pack<n...>, F (&x)[kLanes], const float (*other)[kLanes]) {
        ((x[n] = Order::min(x[n], _mm512_load_ps(other[kLanes - 1 - n]))), ...);
    }
    // The 16 least of two times 16 sorted values, sorted.
    template <class Order>
    ADC_INLINE void merge(F (&x)[kLanes], const float (*other)[kLanes]) {
        least_of<Order>(Count<kLanes>(), x, other);  // ascend, then descend
        half_clean<Order, 8>(Count<8>(), x);
        half_clean<Order, 4>(Count<8>(), x);
        half_clean<Order, 2>(Count<8>(), x);
        half_clean<Order, 1>(Count<8>(), x);
    }

    // Values 4 * part … 4 * part + 3 of queries i, i + 4, i + 8.
    ADC_INLINE F of_three(const float* values, std::int64_t stride, int i, int part) {
        const float* at = values + i * stride + 4 * part;
        F x = _mm512_castps128_ps512(_mm_loadu_ps(at));
        x = _mm512_mask_broadcast_f32x4(x, 0x00f0, _mm_loadu_ps(at + 4 * stride));
        return _mm512_mask_broadcast_f32x4(x, 0xff00, _mm_loadu_ps(at + 8 * stride));
    }
    // Transposes the 4 x 4 values in each quarter of four registers.
    template <int part>
    ADC_INLINE void transpose(F (&x)[kLanes]) {
        F* four = x + 4 * part;
        const F low = _mm512_unpacklo_ps(four[0], four[1]), lower = _mm512_unpacklo_ps(four[2], four[3]);
        const F high = _mm512_unpackhi_ps(four[0], four[1]), higher = _mm512_unpackhi_ps(four[2], four[3]);
        four[0] = _mm512_shuffle_ps(low, lower, 0x44);
        four[1] = _mm512_shuffle_ps(low, lower, 0xEE);
        four[2] = _mm512_shuffle_ps(high, higher, 0x44);
        four[3] = _mm512_shuffle_ps(high, higher, 0xEE);
    }
    template <int part>
    ADC_INLINE void turn_four(const float* values, std::int64_t stride, F (&x)[kLanes]) {
        for (int i = 0; i < 4; ++i) x[4 * part + i] = of_three(values, stride, i, part);
        transpose<part>(x);
    }
    // Register j gets the j-th of 16 values of kNearTile queries, `stride` apart.
    ADC_INLINE void turn(const float* values, std::int64_t stride, F (&x)[kLanes]) {
        turn_four<0>(values, stride, x);
        turn_four<1>(values, stride, x);
        turn_four<2>(values, stride, x);
        turn_four<3>(values, stride, x);
    }
    template <int... n>
    ADC_INLINE void store(Pack<n...>, const F (&x)[kLanes], float (*out)[kLanes]) {
        (_mm512_store_ps(out[n], x[n]), ...);
    }

    // Of each query a number that at least k <= 16 of its 16 · panels values do not exceed, close to the
    // k-th smallest: that of 32 values, each the least of every other panel's.
    ADC_INLINE F roughly_kth(const float* values, int panels, int k) {
        alignas(64) float least[2][kNearTile][kLanes];
        alignas(64) float sorted[kLanes][kLanes];
        for (int t = 0; t < kNearTile; ++t) {
            const float* own = values + t * panels * kLanes;
            F even = _mm512_loadu_ps(own), odd = panels > 1 ? _mm512_loadu_ps(own + kLanes) : even;
            for (int p = 2; p < panels; ++p) {
                const F value = _mm512_loadu_ps(own + p * kLanes);
                (p % 2 == 0 ? even : odd) = _mm512_min_ps(p % 2 == 0 ? even : odd, value);
            }
            _mm512_store_ps(least[0][t], even);
            _mm512_store_ps(least[1][t], odd);
        }
        F x[kLanes];
        turn(least[0][0], kLanes, x);
        sort<AsFloats>(x);
        store(Count<kLanes>(), x, sorted);
        if (panels > 1) {
            turn(least[1][0], kLanes, x);
            sort<AsFloats>(x);
            merge<AsFloats>(x, sorted);
            store(Count<kLanes>(), x, sorted);
        }
        return _mm512_load_ps(sorted[k - 1]);
    }

    // What is sorted: a distance whose last five bits are the place of its row in the list. A key is off by
    // at most 31 units of 2^-23; where two are apart by kRoom more than the distances must be, these are,
    // and those of all later keys.
    static constexpr std::int32_t kPlace = kRanked - 1;
    static constexpr std::int32_t kNothing = 0x7f7fffe0;  // after all sound distances
    static constexpr float kRoom = 1 + 8e-6f;             // more than twice 31 units, and the roundings of the test
    ADC_INLINE F key(F distance, int place, __m512i found) {
        const __mmask16 listed = _mm512_cmpgt_epi32_mask(found, _mm512_set1_epi32(place));
        const __m512i bits = _mm512_mask_mov_epi32(_mm512_set1_epi32(kNothing), listed, _mm512_castps_si512(distance));
        // (bits & ~kPlace) | place
        return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(kPlace), _mm512_set1_epi32(place), 0xBA));
    }
    // The keys of the rows from `first` on, sorted.
    template <int first, int... n>
    ADC_INLINE void sorted_keys(Pack<n...>, const NearTile& near, F (&x)[kLanes]) {
        const __m512i found = _mm512_loadu_si512(near.found);
        turn(near.distances[0] + first, kRanked, x);
        ((x[n] = key(x[n], first + n, found)), ...);
        sort<AsIntegers>(x);
    }
    template <int part>
    ADC_INLINE void turn_back(F (&x)[kLanes], float (*keys)[kLanes]) {
        transpose<part>(x);
        for (int i = 0; i < 4; ++i) {
            _mm_store_ps(keys[i] + 4 * part, _mm512_castps512_ps128(x[4 * part + i]));
            _mm_store_ps(keys[4 + i] + 4 * part, _mm512_extractf32x4_ps(x[4 * part + i], 1));
            _mm_store_ps(keys[8 + i] + 4 * part, _mm512_extractf32x4_ps(x[4 * part + i], 2));
        }
    }
    // Kernels::in_order for k < 16 of all queries with k to kRanked rows; of the others nothing holds.
    ADC_INLINE unsigned in_order(NearTile& near, int k, const NearLimits& limits) {
        alignas(64) float sorted[kLanes][kLanes];
        alignas(64) float keys[kNearTile][kLanes];
        F x[kLanes];
        sorted_keys<0>(Count<kLanes>(), near, x);
        store(Count<kLanes>(), x, sorted);
        if (_mm512_cmpgt_epi32_mask(_mm512_loadu_si512(near.found), _mm512_set1_epi32(kLanes)) != 0) {
            sorted_keys<kLanes>(Count<kLanes>(), near, x);
            merge<AsIntegers>(x, sorted);
            store(Count<kLanes>(), x, sorted);
        }
        turn_back<0>(x, keys);
        turn_back<1>(x, keys);
        turn_back<2>(x, keys);
        turn_back<3>(x, keys);
        const F infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity()), room = _mm512_set1_ps(kRoom);
        const F apart = _mm512_set1_ps(limits.apart * kRoom), last = _mm512_mul_ps(_mm512_load_ps(sorted[k - 1]), room);
        const unsigned sound = _mm512_cmp_ps_mask(_mm512_load_ps(sorted[0]), _mm512_set1_ps(limits.smallest * kRoom), _CMP_GE_OQ) &
                               _mm512_cmp_ps_mask(last, _mm512_set1_ps(limits.largest), _CMP_LE_OQ);
        unsigned clear = sound;
        for (int j = 0; j < k; ++j)
            clear &= _mm512_cmp_ps_mask(_mm512_mul_ps(_mm512_load_ps(sorted[j]), apart), _mm512_load_ps(sorted[j + 1]), _CMP_LT_OQ);
        _mm512_storeu_ps(near.kth, _mm512_mask_mov_ps(infinity, static_cast<__mmask16>(sound), last));
        for (int t = 0; t < near.count; ++t) {
            const __m512i place = _mm512_castps_si512(_mm512_load_ps(keys[t]));  // only its last bits are looked at
            const float* distances = near.distances[t];
            const std::int32_t* rows = near.rows[t / 2];
            _mm512_storeu_ps(near.sorted[t], _mm512_permutex2var_ps(_mm512_loadu_ps(distances), place, _mm512_loadu_ps(distances + kLanes)));
            _mm512_storeu_si512(near.sorted_rows[t],
                                _mm512_permutex2var_epi32(_mm512_loadu_si512(rows), place, _mm512_loadu_si512(rows + kLanes)));
        }
        return clear & ((1u << near.count) - 1);
    }
};
