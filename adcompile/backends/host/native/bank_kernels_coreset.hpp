// The kernels that only the coreset needs. Included by bank_kernels_impl.hpp, on the same terms.

// Panels p[0], p[1], … beside each other: independent sums, and each number of the query is
// broadcast once.
template <class V, int... p>
ADC_INLINE typename V::F head_tile(Pack<p...>, const float* panels, const float* query, float* out,
                                   typename V::F least) {
    using F = typename V::F;
    constexpr std::int64_t size = kPanelTerms * kLanes;
    const F square = V::set(query[0]);
    F sum[] = {V::add(V::load(panels + p * size), square)...};
    for (int term = 1; term < kPanelTerms; ++term) {
        const F value = V::set(query[term]);
        const float* at = panels + kLanes * term;
        ((sum[p] = V::fma(V::load(at + p * size), value, sum[p])), ...);
    }
    ((V::store(out + kLanes * p, sum[p])), ...);
    ((least = V::min(least, sum[p])), ...);
    return least;
}

template <class V>
ADC_TARGET float heads_impl(const float* panels, int count, const float* query, float* out) {
    constexpr std::int64_t size = kPanelTerms * kLanes;
    typename V::F least = V::set(std::numeric_limits<float>::infinity());
    int i = 0;
    for (; i + 4 <= count; i += 4) least = head_tile<V>(Count<4>(), panels + i * size, query, out + kLanes * i, least);
    for (; i < count; ++i) least = head_tile<V>(Count<1>(), panels + i * size, query, out + kLanes * i, least);
    return -V::largest(V::sub(V::zero(), least));
}

template <class V>
ADC_TARGET int listed_impl(const float* values, int panels, float limit, std::int32_t* at) {
    const typename V::F top = V::set(limit);
    int found = 0;
    for (int i = 0; i < panels; ++i) {
        const unsigned mask = V::below(V::load(values + kLanes * i), top);
        if (mask != 0) found += V::append(mask, kLanes * i, at + found);
    }
    return found;
}

template <class V>
ADC_TARGET void spread_impl(const BankView& b, const float* u, const float* z, int n, float* out) {
    using F = typename V::F;
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float* row = u + i * b.stride;
        const F z0 = V::load(z + kLanes * i), z1 = V::load(z + kLanes * (i + 1));
        const F z2 = V::load(z + kLanes * (i + 2)), z3 = V::load(z + kLanes * (i + 3));
        for (std::int64_t j = 0; j < b.stride; ++j) {
            F sum = V::fma(z0, V::set(row[j]), V::load(out + kLanes * j));
            sum = V::fma(z1, V::set(row[b.stride + j]), sum);
            sum = V::fma(z2, V::set(row[2 * b.stride + j]), sum);
            V::store(out + kLanes * j, V::fma(z3, V::set(row[3 * b.stride + j]), sum));
        }
    }
    for (; i < n; ++i) {
        const F one = V::load(z + kLanes * i);
        for (std::int64_t j = 0; j < b.stride; ++j)
            V::store(out + kLanes * j, V::fma(one, V::set(u[i * b.stride + j]), V::load(out + kLanes * j)));
    }
}
