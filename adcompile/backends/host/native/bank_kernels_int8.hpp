// The kernels over int8 copies of the rows: tiles of queries and panels, and single rows. Included by
// bank_kernels_impl.hpp, on the same terms.

// What becomes of the values of a tile: stored, or compared and kept as masks.
template <class V>
struct StoreValues {
    using Vector = V;
    using Out = float;
    using Thin = StoreValues<typename V::Thin>;
    static constexpr int kPerPanel = kLanes;
    ADC_INLINE void put(typename V::F value, const float*, const Probe&, float* out) { V::store(out, value); }
};

template <class V>
struct StoreMasks {
    using Vector = V;
    using Out = std::uint16_t;
    using Thin = StoreMasks<V>;
    static constexpr int kPerPanel = 1;
    ADC_INLINE void put(typename V::F value, const float* terms, const Probe& probe, std::uint16_t* out) {
        value = V::fma(V::load(terms + 2 * kLanes), V::set(probe.slope), value);
        *out = static_cast<std::uint16_t>(V::below(value, V::set(probe.limit)));
    }
};

// The least value of each lane, with the number of its panel in the last bits: `out` has one vector for each query.
template <class V>
struct StoreLeast {
    using Vector = V;
    using Out = float;
    using Thin = StoreLeast<V>;
    static constexpr int kPerPanel = 0;
};

template <class V, int... p>
ADC_INLINE void dot_row(Pack<p...>, typename V::I* sum, const typename V::Bank* rows, typename V::Code code) {
    ((sum[p] = V::dot(sum[p], rows[p], code)), ...);
}

template <class V, class Store, int... p>
ADC_INLINE void finish_row(Pack<p...>, const Shadow& s, const typename V::I* sum, const float* terms,
                           const Probe& probe, [[maybe_unused]] std::int64_t number, typename Store::Out* out) {
    using F = typename V::F;
    const int panel = s.term_count() * kLanes;
    const F factor = V::set(probe.factor);
    const F value[] = {V::fma(V::to_float(sum[p]), V::mul(factor, V::load(terms + p * panel)),
                              V::load(terms + p * panel + kLanes))...};
    if constexpr (Store::kPerPanel == 0) {
        F least = V::load(out);
        ((least = V::min(V::tagged(value[p], number + p), least)), ...);
        V::store(out, least);
    } else if (s.rest) {
        const F rest = V::set(probe.rest);
        (Store::put(V::fma(V::load(terms + p * panel + 3 * kLanes), rest, value[p]), terms + p * panel, probe,
                    out + p * Store::kPerPanel), ...);
    } else {
        (Store::put(value[p], terms + p * panel, probe, out + p * Store::kPerPanel), ...);
    }
}

// Adds the products of the columns from `first` to `end`. `code_stride`: bytes between queries.
template <class V, int... q, int... p>
ADC_INLINE void dot_columns(Pack<q...>, Pack<p...> panels, const Shadow& s, const unsigned char* codes, std::int64_t code_stride,
                            std::int64_t panel, std::int64_t first, std::int64_t end, typename V::I (&sum)[sizeof...(q)][sizeof...(p)]) {
    const std::int8_t* data = s.codes + panel * kLanes * s.columns;
    for (std::int64_t i = first / 4; i < end / 4; ++i) {
        const typename V::Bank rows[] = {V::bank(data + p * kLanes * s.columns + 4 * kLanes * i)...};
        const unsigned char* column = codes + 4 * V::kCodeBytes * i;
        (dot_row<V>(panels, sum[q], rows, V::code(column + q * code_stride)), ...);
    }
}

template <class V, class Store, int... q, int... p>
ADC_TARGET void tile_impl(Pack<q...> queries, Pack<p...> panels, const Shadow& s, const unsigned char* codes,
                          const Probe* probes, std::int64_t panel, typename Store::Out* out,
                          std::int64_t out_stride) {
    typename V::I sum[sizeof...(q)][sizeof...(p)];
    for (int n = 0; n < panels.size(); ++n) ((sum[q][n] = V::start(probes[q].bias)), ...);
    dot_columns<V>(queries, panels, s, codes, s.columns * V::kCodeBytes, panel, 0, s.columns, sum);
    const float* terms = s.terms + panel * s.term_count() * kLanes;
    (finish_row<V, Store>(panels, s, sum[q], terms, probes[q], panel, out + q * out_stride), ...);
}

// Between the results of queries.
template <class Store>
constexpr std::int64_t stride_of(int panels) {
    return Store::kPerPanel == 0 ? kLanes : static_cast<std::int64_t>(panels) * Store::kPerPanel;
}

template <class V, class Store, int Q>
ADC_TARGET void tile_panels(const Shadow& s, const unsigned char* codes, const Probe* probes, std::int64_t first,
                            int panels, typename Store::Out* out) {
    const std::int64_t stride = stride_of<Store>(panels);
    int p = 0;
    for (; p + V::kTilePanels <= panels; p += V::kTilePanels)
        tile_impl<V, Store>(Count<Q>(), Count<V::kTilePanels>(), s, codes, probes, first + p,
                            out + p * Store::kPerPanel, stride);
    for (; p < panels; ++p) {
        typename Store::Out* to = out + p * Store::kPerPanel;
        if (Store::kPerPanel == kLanes && first + p == s.thin)
            tile_impl<typename Store::Thin::Vector, typename Store::Thin>(Count<Q>(), Count<1>(), s, codes, probes, s.thin, to, stride);
        else
            tile_impl<V, Store>(Count<Q>(), Count<1>(), s, codes, probes, first + p, to, stride);
    }
}

// Tiles of n queries from query q on; returns the first query that is left.
template <class V, class Store, int n>
ADC_TARGET int take_tiles(const Shadow& s, const unsigned char* codes, const Probe* probes, int q, int count,
                          std::int64_t first, int panels, typename Store::Out* out) {
    const std::int64_t code_stride = s.columns * V::kCodeBytes;
    const std::int64_t stride = stride_of<Store>(panels);
    for (; q + n <= count; q += n)
        tile_panels<V, Store, n>(s, codes + q * code_stride, probes + q, first, panels, out + q * stride);
    return q;
}

template <class V, class Store>
ADC_TARGET void all_tiles(const Shadow& s, const void* codes, const Probe* probes, int count, std::int64_t first,
                          int panels, typename Store::Out* out) {
    const unsigned char* bytes = static_cast<const unsigned char*>(codes);
    int q = take_tiles<V, Store, V::kTileQueries>(s, bytes, probes, 0, count, first, panels, out);
    q = take_tiles<V, Store, 4>(s, bytes, probes, q, count, first, panels, out);
    take_tiles<V, Store, 1>(s, bytes, probes, q, count, first, panels, out);
}

template <class V>
ADC_TARGET void values_impl(const Shadow& s, const void* codes, const Probe* probes, int count,
                            std::int64_t first, int panels, float* out) {
    all_tiles<V, StoreValues<V>>(s, codes, probes, count, first, panels, out);
}

// What four queries have in common is multiplied once for them.
template <class V, int... four, int... q, int... p>
ADC_TARGET void fours_impl(Pack<four...> fours, Pack<q...> queries, Pack<p...> panels, const Shadow& s, const unsigned char* codes,
                           const Probe* probes, std::int64_t shared, std::int64_t panel, float* out, std::int64_t out_stride) {
    const std::int64_t code_stride = s.columns * V::kCodeBytes;
    typename V::I common[sizeof...(four)][sizeof...(p)], sum[sizeof...(q)][sizeof...(p)];
    for (int n = 0; n < panels.size(); ++n) ((common[four][n] = V::start(0)), ...);
    dot_columns<V>(fours, panels, s, codes, kFour * code_stride, panel, shared, s.columns, common);
    for (int n = 0; n < panels.size(); ++n) ((sum[q][n] = V::start(probes[q].bias, common[q / kFour][n])), ...);
    dot_columns<V>(queries, panels, s, codes, code_stride, panel, 0, shared, sum);
    const float* terms = s.terms + panel * s.term_count() * kLanes;
    (finish_row<V, StoreValues<V>>(panels, s, sum[q], terms, probes[q], panel, out + q * out_stride), ...);
}

template <class V, int fours>
ADC_TARGET int take_fours(const Shadow& s, const unsigned char* codes, const Probe* probes, int q, int count, std::int64_t shared,
                          int panels, float* out) {
    constexpr int n = kFour * fours;
    const std::int64_t stride = kLanes * panels;
    for (; q + n <= count; q += n) {
        const unsigned char* own = codes + q * s.columns * V::kCodeBytes;
        float* to = out + q * stride;
        int p = 0;
        for (; p + V::kTilePanels <= panels; p += V::kTilePanels)
            fours_impl<V>(Count<fours>(), Count<n>(), Count<V::kTilePanels>(), s, own, probes + q, shared, p, to + p * kLanes, stride);
        for (; p < panels; ++p) {
            if (p == s.thin)
                fours_impl<typename V::Thin>(Count<fours>(), Count<n>(), Count<1>(), s, own, probes + q, shared, p, to + p * kLanes, stride);
            else
                fours_impl<V>(Count<fours>(), Count<n>(), Count<1>(), s, own, probes + q, shared, p, to + p * kLanes, stride);
        }
    }
    return q;
}

template <class V>
ADC_TARGET void values_of_fours_impl(const Shadow& s, const void* codes, const Probe* probes, int count, std::int64_t shared, int panels,
                                     float* out) {
    const unsigned char* bytes = static_cast<const unsigned char*>(codes);
    int q = 0;
    if constexpr (V::kTileQueries > kFour) q = take_fours<V, V::kTileQueries / kFour>(s, bytes, probes, q, count, shared, panels, out);
    take_fours<V, 1>(s, bytes, probes, q, count, shared, panels, out);
}

template <class V>
ADC_TARGET void sift_impl(const Shadow& s, const void* codes, const Probe* probes, int count,
                          std::int64_t first, int panels, std::uint16_t* masks) {
    all_tiles<V, StoreMasks<V>>(s, codes, probes, count, first, panels, masks);
}

template <class V>
ADC_TARGET int collect_impl(const Shadow& s, const float* values, std::int64_t first, int panels, float seen,
                            float slope, float limit, std::int32_t* rows) {
    using F = typename V::F;
    const F top = V::set(limit), tilt = V::set(slope), bottom = V::set(seen);
    const int terms = s.term_count() * kLanes;
    int found = 0;
    for (int p = 0; p < panels; ++p) {
        const float* errors = s.terms + (first + p) * terms + 2 * kLanes;
        const F value = V::load(values + 16 * p);
        const unsigned mask = V::below(V::fma(tilt, V::load(errors), value), top) & ~V::below(value, bottom);
        if (mask != 0)
            found += V::append(mask, static_cast<std::int32_t>((first + p) * kLanes), rows + found);
    }
    return found;
}

template <class V>
ADC_TARGET void fetch_impl(const BankView& b, const std::int32_t* rows, int count) {
#if defined(__GNUC__)
    for (int i = 0; i < count; ++i) {
        if (rows[i] >= b.rows) return;  // padding of the last panel
        const std::int8_t* row = b.row_codes + rows[i] * b.code_stride;
        for (std::int64_t c = 0; c < b.code_stride; c += 64) __builtin_prefetch(row + c);
        __builtin_prefetch(b.row_terms + static_cast<std::int64_t>(rows[i]) * kRowTerms);
    }
#endif
}

// Writes those of four rows (the first `real` count) that pass the test, and their values; `dots` are
// their products, short of the bias. May write four entries of each. Returns how many passed.
template <class V>
ADC_TARGET inline int passing(const BankView& b, const Probe& probe, const std::int32_t (&numbers)[4],
                              const std::int32_t (&dots)[4], int real, std::int32_t* rows, float* values) {
    int kept = 0;
    for (int n = 0; n < real; ++n) {
        const float* terms = b.row_terms + static_cast<std::int64_t>(numbers[n]) * kRowTerms;
        const float dot = static_cast<float>(dots[n] + probe.bias);
        const float value = dot * (probe.factor * terms[0]) + terms[1];
        rows[kept] = numbers[n];
        values[kept] = value;
        kept += value + probe.slope * terms[2] <= probe.limit ? 1 : 0;
    }
    return kept;
}

template <class V>
ADC_TARGET int check_impl(const BankView& b, const Probe& probe, std::int32_t* rows, int count, float* values) {
    const unsigned char* codes = static_cast<const unsigned char*>(probe.codes);
    int kept = 0;
    for (int i = 0; i < count; i += 4) {
        const std::int8_t* row[4];
        std::int32_t numbers[4], dots[4];
        for (int n = 0; n < 4; ++n) {
            numbers[n] = rows[i + n < count ? i + n : i];
            row[n] = b.row_codes + numbers[n] * b.code_stride;
        }
        V::row_dots(row, codes, b.code_stride, dots);
        kept += passing<V>(b, probe, numbers, dots, count - i < 4 ? count - i : 4, rows + kept, values + kept);
    }
    return kept;
}
