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

    template <int low, int high>
    ADC_INLINE void exchange(F (&x)[kLanes]) {
        const F least = _mm512_min_ps(x[low], x[high]);
        x[high] = _mm512_max_ps(x[low], x[high]);
        x[low] = least;
    }
    template <int... n>
    ADC_INLINE void sort(Pack<n...>, F (&x)[kLanes]) {
        (exchange<kNetwork.step[n].low, kNetwork.step[n].high>(x), ...);
    }
    ADC_INLINE void sort(F (&x)[kLanes]) { sort(Count<kSteps>(), x); }
    template <int d, int... n>
    ADC_INLINE void half_clean(Pack<n...>, F (&x)[kLanes]) {
        (exchange<n / d * 2 * d + n % d, n / d * 2 * d + n % d + d>(x), ...);
    }
    // Sorts values that ascend and then descend.
    ADC_INLINE void merge(F (&x)[kLanes]) {
        half_clean<8>(Count<8>(), x);
        half_clean<4>(Count<8>(), x);
        half_clean<2>(Count<8>(), x);
        half_clean<1>(Count<8>(), x);
    }

    // Values 4 * part … 4 * part + 3 of queries i, i + 4, i + 8.
    ADC_INLINE F of_three(const float* values, std::int64_t stride, int i, int part) {
        const float* at = values + i * stride + 4 * part;
        F x = _mm512_castps128_ps512(_mm_loadu_ps(at));
        x = _mm512_mask_broadcast_f32x4(x, 0x00f0, _mm_loadu_ps(at + 4 * stride));
        return _mm512_mask_broadcast_f32x4(x, 0xff00, _mm_loadu_ps(at + 8 * stride));
    }
    template <int part>
    ADC_INLINE void turn_four(const float* values, std::int64_t stride, F (&x)[kLanes]) {
        const F a = of_three(values, stride, 0, part), b = of_three(values, stride, 1, part);
        const F c = of_three(values, stride, 2, part), d = of_three(values, stride, 3, part);
        const F ab = _mm512_unpacklo_ps(a, b), cd = _mm512_unpacklo_ps(c, d);
        const F AB = _mm512_unpackhi_ps(a, b), CD = _mm512_unpackhi_ps(c, d);
        x[4 * part] = _mm512_shuffle_ps(ab, cd, 0x44);
        x[4 * part + 1] = _mm512_shuffle_ps(ab, cd, 0xEE);
        x[4 * part + 2] = _mm512_shuffle_ps(AB, CD, 0x44);
        x[4 * part + 3] = _mm512_shuffle_ps(AB, CD, 0xEE);
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
    template <int... n>
    ADC_INLINE void least_of(Pack<n...>, F (&x)[kLanes], const float (*other)[kLanes]) {
        ((x[n] = _mm512_min_ps(x[n], _mm512_load_ps(other[kLanes - 1 - n]))), ...);
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
        sort(x);
        store(Count<kLanes>(), x, sorted);
        if (panels > 1) {
            turn(least[1][0], kLanes, x);
            sort(x);
            least_of(Count<kLanes>(), x, sorted);
            merge(x);
            store(Count<kLanes>(), x, sorted);
        }
        return _mm512_load_ps(sorted[k - 1]);
    }
};
