// The kernels that only the coreset needs. Included by bank_kernels_impl.hpp, on the same terms.

// Branchless: about every panel has a row that passes.
template <class V>
ADC_TARGET int within_impl(const Shadow& s, const float* values, std::int64_t first, int panels, float slope, float limit,
                           std::int32_t* rows) {
    using F = typename V::F;
    const F top = V::set(limit), tilt = V::set(slope);
    const int terms = s.term_count() * kLanes;
    const float* errors = s.terms + first * terms + 2 * kLanes;
    int found = 0;
    for (int p = 0; p < panels; ++p) {
        const F value = V::fma(tilt, V::load(errors + p * terms), V::load(values + kLanes * p));
        found += V::append(V::below(value, top), static_cast<std::int32_t>((first + p) * kLanes), rows + found);
    }
    return found;
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

template <class V>
ADC_TARGET void halve_impl(const float* values, const std::uint8_t* order, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; i += 32)
        for (int lane = 0; lane < kLanes; ++lane) {
            out[i / 2 + lane] = values[i + order[i + lane]];
            out[(count + i) / 2 + lane] = values[i + order[i + kLanes + lane]];
        }
}
