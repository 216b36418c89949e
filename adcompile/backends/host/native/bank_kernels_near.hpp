// The kernels of bank_nearest.cpp, which look at all queries of a tile, one after another: none of them
// waits for what another one computes. Included by bank_kernels_impl.hpp, on the same terms.

// The k-th smallest of `parts` times 16 values, by counting.
template <class V, int parts>
ADC_INLINE float kth_of(const typename V::F (&values)[parts], int k) {
    float lane[parts * kLanes];
    for (int p = 0; p < parts; ++p) V::store(lane + p * kLanes, values[p]);
    float kth = std::numeric_limits<float>::max();
    for (float value : lane) {
        int count = 0;
        for (int p = 0; p < parts; ++p) count += V::count(V::below(values[p], V::set(value)));
        kth = count >= k && value < kth ? value : kth;
    }
    return kth;
}

constexpr int kSmallShare = 13;  // of 16: the k-th of the least values of 16 lanes is much more than the k-th value if k is greater

template <class V>
ADC_TARGET float roughly_kth_impl(const float* values, int panels, int k) {
    using F = typename V::F;
    F half[] = {V::load(values), V::load(values + (panels > 1 ? kLanes : 0))};  // the least of every other panel
    for (int p = 2; p < panels; ++p) half[p % 2] = V::min(half[p % 2], V::load(values + p * kLanes));
    const F least[] = {V::min(half[0], half[1])};
    if (k == 1) return -V::largest(V::sub(V::zero(), least[0]));
    if constexpr (V::kSorts) return V::kth(least[0], k);
    return k <= kSmallShare || panels == 1 ? kth_of<V>(least, k) : kth_of<V>(half, k);
}

template <class V>
ADC_TARGET unsigned encode_tile_impl(const BankView& b, const float* shift, const float* const* x, const NearLimits& limits, void* codes,
                                     NearTile& near) {
    unsigned good = 0;
    for (int t = 0; t < near.count; ++t) {
        if (near.in_fours()) {
            const float* first = x[t / kFour * kFour];
            const std::size_t size = static_cast<std::size_t>(near.stride - near.shared) * sizeof(float);
            if (std::memcmp(x[t] + near.shared, first + near.shared, size) != 0) near.shared = near.stride;
        }
        Quantised q;
        unsigned char* own = static_cast<unsigned char*>(codes) + t * b.code_stride * V::kCodeBytes;
        if (!encode_impl<V>(b, shift, x[t], limits.step, own, &q)) continue;
        good |= 1u << t;
        near.square[t] = static_cast<float>(q.square);
        const float error = static_cast<float>(q.error) / limits.step * limits.error_scale;
        near.error[t] = (error + ((1 + near.square[t]) / 2 + error) * limits.error_per_length + limits.shift_error) * (1 + 1e-6f);
        near.bias[t] = q.bias;
    }
    return good;
}

template <class V>
ADC_TARGET void likely_impl(const float* values, int panels, int k, float slack, float usual_error, NearTile& near) {
    using F = typename V::F;
    bool together = false;
    if constexpr (V::kSorts) {
        together = k > 1;
        if (together) V::store(near.least, V::Lanes::roughly_kth(values, panels, k));
    }
    for (int t = 0; !together && t < near.count; ++t) near.least[t] = roughly_kth_impl<V>(values + t * panels * 16, panels, k);
    const F kth = V::load(near.least), square = V::load(near.square);
    const F distance = V::sqrt(V::mul(V::max(V::add(kth, square), V::zero()), V::set(slack)));
    const F reach = V::add(V::add(distance, V::load(near.error)), V::set(usual_error));
    V::store(near.seen, V::max(V::sub(V::mul(reach, reach), square), kth));
}

// Rows with one of several queries' values up to its limit. The last panel has the rows of `real`.
template <class V, int... q>
ADC_INLINE int list_any(Pack<q...>, const float* const (&values)[sizeof...(q)], const float* limits, int panels, unsigned real,
                        std::int32_t* rows) {
    const typename V::F limit[] = {V::set(limits[q])...};
    int found = 0;
    for (int p = 0; p < panels; ++p) {
        unsigned mask = (V::below(V::load(values[q] + 16 * p), limit[q]) | ...);
        if (p == panels - 1) mask &= real;
        found += V::append(mask, 16 * p, rows + found);
    }
    return found;
}

// The list of queries t, t + 1, …; of those beyond the last one nothing is looked at.
template <class V, int... q>
ADC_INLINE bool list_together(Pack<q...> queries, const float* values, std::int64_t rows, int t, NearTile& near) {
    const int panels = static_cast<int>((rows + 15) / 16);
    const unsigned real = 0xffffu >> (16 * panels - rows);
    const auto at = [&near, t](int i) { return t + i < near.count ? t + i : t; };
    const float* const own[] = {values + at(q) * panels * 16 ...};
    const float limits[] = {near.seen[at(q)]...};
    std::int32_t* list = near.rows[t / 2];
    int found = list_any<V>(queries, own, limits, panels, real, list);
    const bool many = found > kRanked;
    if (many) {
        const float least[] = {near.least[at(q)]...};
        ((near.seen[t + q] = least[q]), ...);
        found = list_any<V>(queries, own, least, panels, real, list);
    }
    ((near.found[t + q] = found), ...);
    return many;
}

template <class V>
ADC_TARGET bool list_rows_impl(const float* values, std::int64_t rows, NearTile& near) {
    bool many = false;
    if (near.in_fours()) {
        for (int t = 0; t < near.count; t += kFour) {
            many |= list_together<V>(Count<kFour>(), values, rows, t, near);
            std::memcpy(near.rows[t / 2 + 1], near.rows[t / 2], kRanked * sizeof near.rows[0][0]);
        }
    } else {
        for (int t = 0; t < near.count; t += 2) many |= list_together<V>(Count<2>(), values, rows, t, near);
    }
    return many;
}

// Whether 5 of so many rows are taken together: once or twice, so that whole fours are left.
inline bool takes_five(int left) { return left % 4 == 1 ? left >= 5 : left % 4 == 2 && left >= 10; }

template <class V, int n>
ADC_INLINE void two_by_rows(const BankView& b, const float* const* x, const std::int32_t* rows, float* out) {
    const float* y[n];
    for (int r = 0; r < n; ++r) y[r] = b.row(rows[r]);
    distance_tile<V>(Count<2>(), Count<n>(), x, y, b.stride, out, kRanked);
}

// A row of a list and the two queries it belongs to.
struct Listed {
    const float *row, *x[2];
    float* out;  // of the first query
};

// Two of these: one alone would wait for its sums most of the time.
template <class V>
ADC_INLINE void two_listed(const Listed& a, const Listed& b, std::int64_t stride) {
    using F = typename V::F;
    F low[4], high[4];
    for (int n = 0; n < 4; ++n) low[n] = high[n] = V::zero();
    for (std::int64_t i = stride - 32; i >= 0; i -= 32) {
        const F a0 = V::kept(V::load(a.row + i)), b0 = V::kept(V::load(b.row + i));
        low[0] = add_square<V>(low[0], V::load(a.x[0] + i), a0);
        low[1] = add_square<V>(low[1], V::load(a.x[1] + i), a0);
        low[2] = add_square<V>(low[2], V::load(b.x[0] + i), b0);
        low[3] = add_square<V>(low[3], V::load(b.x[1] + i), b0);
        const F a1 = V::kept(V::load(a.row + i + 16)), b1 = V::kept(V::load(b.row + i + 16));
        high[0] = add_square<V>(high[0], V::load(a.x[0] + i + 16), a1);
        high[1] = add_square<V>(high[1], V::load(a.x[1] + i + 16), a1);
        high[2] = add_square<V>(high[2], V::load(b.x[0] + i + 16), b1);
        high[3] = add_square<V>(high[3], V::load(b.x[1] + i + 16), b1);
    }
    a.out[0] = V::sum(V::add(low[0], high[0]));
    a.out[kRanked] = V::sum(V::add(low[1], high[1]));
    b.out[0] = V::sum(V::add(low[2], high[2]));
    b.out[kRanked] = V::sum(V::add(low[3], high[3]));
}

template <class V, std::size_t Q, int... n>
ADC_INLINE void start_with(Pack<n...>, const Running<V, 1, sizeof...(n)>& common, Running<V, Q, sizeof...(n)>& sums) {
    for (std::size_t q = 0; q < Q; ++q) {
        ((sums.low[n][q] = common.low[n][0]), ...);
        ((sums.high[n][q] = common.high[n][0]), ...);
    }
}

// Four queries, alike from column `shared` on, with n rows.
template <class V, int n>
ADC_INLINE void four_by_rows(const BankView& b, const float* const* x, const std::int32_t* rows, std::int64_t shared, float* out) {
    constexpr int together = V::kFourQueries;
    const float* y[n];
    for (int r = 0; r < n; ++r) y[r] = b.row(rows[r]);
    Running<V, 1, n> common;
    clear<V>(Count<1>(), Count<n>(), common);
    add_columns<V>(Count<1>(), Count<n>(), x, y, shared, b.stride, common);
    for (int q = 0; q < kFour; q += together) {
        Running<V, together, n> sums;
        start_with<V, together>(Count<n>(), common, sums);
        add_columns<V>(Count<together>(), Count<n>(), x + q, y, 0, shared, sums);
        finish_distances<V>(Count<together>(), Count<n>(), sums, out + q * kRanked, kRanked);
    }
}

template <class V>
ADC_INLINE void listed_by_fours(const BankView& b, const float* const* x, NearTile& near) {
    constexpr int n = V::kFourRows;
    for (int t = 0; t < near.count; t += kFour) {
        const int found = near.found[t];
        const std::int32_t* rows = near.rows[t / 2];
        float* out = near.distances[t];
        if (found > kRanked) continue;
        int j = 0;
        for (; j + n <= found; j += n) four_by_rows<V, n>(b, x + t, rows + j, near.shared, out + j);
        for (; j < found; ++j) four_by_rows<V, 1>(b, x + t, rows + j, near.shared, out + j);
    }
}

template <class V>
ADC_TARGET void listed_distances_impl(const BankView& b, const float* const* x, NearTile& near) {
    if (near.in_fours()) return listed_by_fours<V>(b, x, near);
    constexpr int n = V::kTwoRows;
    Listed left[kNearTile / 2];
    int count = 0;
    for (int t = 0; t < near.count; t += 2) {
        const int found = near.found[t];
        const std::int32_t* rows = near.rows[t / 2];
        float* out = near.distances[t];
        if (found > kRanked) continue;
        if (t + 1 == near.count) {
            distances_impl<V>(b, x[t], rows, found, out);
            continue;
        }
        int j = 0;
        if constexpr (V::kSorts) {
            for (; takes_five(found - j); j += 5) two_by_rows<V, 5>(b, x + t, rows + j, out + j);
        }
        for (; j + n <= found; j += n) two_by_rows<V, n>(b, x + t, rows + j, out + j);
        if (n > 3 && j + 3 == found) {
            two_by_rows<V, 3>(b, x + t, rows + j, out + j);
        } else if (n > 2 && j + 2 == found) {
            two_by_rows<V, 2>(b, x + t, rows + j, out + j);
        } else if (j < found) {
            left[count++] = {b.row(rows[j]), {x[t], x[t + 1]}, out + j};
        }
    }
    int i = 0;
    for (; i + 2 <= count; i += 2) two_listed<V>(left[i], left[i + 1], b.stride);
    if (i < count) distance_tile<V>(Count<2>(), Count<1>(), left[i].x, &left[i].row, b.stride, left[i].out, kRanked);
}

template <class V>
ADC_TARGET bool in_order_impl(NearTile& near, int t, int k, const NearLimits& limits) {
    if constexpr (V::kSorts) {
        if (near.found[t] <= kLanes) return V::in_order(near, t, k, limits);
    }
    const float* distances = near.distances[t];
    const std::int32_t* rows = near.rows[t / 2];
    float* sorted = near.sorted[t];
    const int count = near.found[t];
    bool sound = true;
    for (int j = 0; j < count; ++j) sound &= distances[j] >= limits.smallest && distances[j] <= limits.largest;
    near.kth[t] = std::numeric_limits<float>::infinity();
    if (!sound) return false;
    std::uint8_t ranks[kRanked];
    ranks_impl<V>(distances, count, ranks);
    for (int j = 0; j < count; ++j) {
        sorted[ranks[j]] = distances[j];
        near.sorted_rows[t][ranks[j]] = rows[j];
    }
    sorted[count] = std::numeric_limits<float>::infinity();
    bool clear = true;
    for (int j = 0; j < k; ++j) clear &= sorted[j] * limits.apart < sorted[j + 1];
    near.kth[t] = sorted[k - 1];
    return clear;
}

template <class V>
ADC_TARGET unsigned order_all_impl(NearTile& near, int k, const NearLimits& limits) {
    unsigned clear = 0;
    bool together = false;
    if constexpr (V::kSorts) {
        together = k > 1 && k < kLanes;
        if (together) clear = V::Lanes::in_order(near, k, limits);
    }
    for (int t = 0; t < near.count; ++t) {
        const bool enough = near.found[t] >= k && near.found[t] <= kRanked;
        if (together && enough) continue;
        clear &= ~(1u << t);
        near.kth[t] = std::numeric_limits<float>::infinity();
        if (enough && in_order_impl<V>(near, t, k, limits)) clear |= 1u << t;
    }
    return clear;
}

template <class V>
ADC_TARGET unsigned not_listed_impl(const Shadow& s, const float* values, std::int64_t rows, const NearLimits& limits, NearTile& near) {
    using F = typename V::F;
    const int panels = static_cast<int>((rows + 15) / 16), terms = s.term_count() * 16;
    // g and the limit of Point::reach, in float32 with all roundings covered.
    const F square = V::load(near.square), longest = V::set(limits.longest);
    const F far = V::mul(V::sqrt(V::load(near.kth)), V::set(limits.scale));
    const F g = V::add(V::mul(V::add(far, V::load(near.error)), V::set(1 + 1e-6f)), V::set(1e-18f));
    const F size = V::add(V::add(square, V::mul(longest, longest)), V::mul(g, longest));
    const F top = V::add(V::sub(V::mul(V::mul(g, g), V::set(1 + 1e-6f)), square), V::fma(size, V::set(60 / 16777216.0f), V::set(1e-30f)));
    V::store(near.slope, V::mul(g, V::set(-2.000001f)));
    V::store(near.limit, top);
    unsigned more = 0;
    for (int t = 0; t < near.count; ++t) {
        const F tilt = V::set(near.slope[t]), bound = V::set(near.limit[t]), seen = V::set(near.seen[t]);
        unsigned any = 0;
        for (int p = 0; p < panels; ++p) {
            const F value = V::load(values + (t * panels + p) * 16);
            any |= V::below(V::fma(tilt, V::load(s.terms + p * terms + 32), value), bound) & ~V::below(value, seen);
        }
        more |= (any != 0 ? 1u : 0u) << t;
    }
    return more;
}
