// The kernels that only the coreset needs. Included by bank_kernels_impl.hpp, on the same terms.

// Branchless: about every panel has a row that passes.
template <class V>
ADC_TARGET int within_impl(const std::uint16_t* masks, std::int64_t first, int panels, std::int32_t* rows) {
    int found = 0;
    for (int p = 0; p < panels; ++p) found += V::append(masks[p], static_cast<std::int32_t>((first + p) * kLanes), rows + found);
    return found;
}

template <class V>
ADC_TARGET void closest_impl(const Shadow& s, const void* codes, const Probe* probes, int count, std::int64_t first, int panels,
                             float* least, std::int32_t* rows) {
    for (int q = 0; q < count; ++q) V::store(least + kLanes * q, V::set(kFarAway));
    all_tiles<V, StoreLeast<V>>(s, codes, probes, count, first, panels, least);
    for (int q = 0; q < count; ++q) {
        const typename V::F lanes = V::load(least + kLanes * q);
        const int lane = __builtin_ctz(V::below(lanes, V::set(-V::largest(V::sub(V::zero(), lanes)))));
        std::uint32_t bits;
        std::memcpy(&bits, least + kLanes * q + lane, sizeof bits);
        // The panel of [first, first + kTagged) with these last bits.
        rows[q] = static_cast<std::int32_t>((first + ((bits - first) & (kTagged - 1))) * kLanes) + lane;
    }
}

template <class V>
ADC_TARGET void pairs_impl(const BankView& b, const Probe* probes, const std::int32_t* rows, int count, float* values) {
    for (int i = 0; i < count; i += 4) {
        const std::int8_t* row[4];
        const unsigned char* query[4];
        std::int32_t dots[4];
        for (int n = 0; n < 4; ++n) {
            const int pair = i + n < count ? i + n : i;
            row[n] = b.row_codes + rows[pair] * b.code_stride;
            query[n] = static_cast<const unsigned char*>(probes[pair].codes);
        }
        V::pair_dots(row, query, b.code_stride, dots);
        for (int n = 0; n < 4 && i + n < count; ++n) {
            const float* terms = b.row_terms + static_cast<std::int64_t>(rows[i + n]) * kRowTerms;
            values[i + n] = static_cast<float>(dots[n] + probes[i + n].bias) * (probes[i + n].factor * terms[0]) + terms[1];
        }
    }
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
