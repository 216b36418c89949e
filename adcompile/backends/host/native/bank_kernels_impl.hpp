// The kernels, written once over a type V that supplies 16-lane vectors. Included by each
// bank_kernels_<isa>.cpp inside an unnamed namespace, after ADC_TARGET (a function attribute) and V
// are defined. V has:
//   F                                  16 floats: load store set zero add sub mul fma min max abs round sqrt
//   F kept(F)                          the same, in a register: not loaded again for each use
//   F fused(F x, F y, F z)             x * y + z rounded once, on every machine (fma may round twice)
//   unsigned below(F a, F b)           bit mask of a <= b
//   float sum(F), largest(F)           the sum in fixed order: i + 8, i + 4, i + 2, i + 1
//   I                                  16 int32 sums: start(bias) to_float
//   Bank, Code                         loaded int8 rows and broadcast codes: bank code dot
//   int32 bias(codes, count)           what start needs so that dot may take rows as unsigned
//   row_dots(rows[4], codes, n, out)   four products of n columns, short of the bias
//   pair_dots(rows[4], codes[4], …)    the same, each row with codes of its own
//   F tagged(F, number)                with the last bits of a number (kTagged) in place of the last ones of each lane
//   store_codes(F, void*, column)      16 floats with integer values to codes
//   store_signed(F, int8*)             the same to signed bytes
//   D                                  16 doubles: no_doubles add_squares sum_doubles
//   int append(mask, row, rows)        lists row + i for each bit i; may write 16 entries
//   kSorts                             1: it has kth(F, k), the k-th smallest lane; in_order for up to 16 rows
//                                      (Kernels::in_order); sums(F*, F*, out, other), sums of 4 and 4 registers;
//                                      Lanes: in_order and roughly_kth of a whole tile
//   Thin                               V, or what does the same for the first 8 rows of a panel: its store
//                                      says of the others that they are far

template <class V>
ADC_TARGET void centre_impl(const BankView& b, const float* x, float* u, float* square,
                            float* largest) {
    using F = typename V::F;
    const F scale = V::set(b.scale);
    F sum0 = V::zero(), sum1 = V::zero(), top = V::zero();
    std::int64_t i = 0;
    for (; i + 32 <= b.columns; i += 32) {
        const F a = V::mul(V::sub(V::load(x + i), V::load(b.centre + i)), scale);
        const F c = V::mul(V::sub(V::load(x + i + 16), V::load(b.centre + i + 16)), scale);
        V::store(u + i, a);
        V::store(u + i + 16, c);
        sum0 = V::fma(a, a, sum0);
        sum1 = V::fma(c, c, sum1);
        top = V::max(top, V::max(V::abs(a), V::abs(c)));
    }
    if (i < b.columns) {
        float last[32] = {};
        std::memcpy(last, x + i, static_cast<std::size_t>(b.columns - i) * sizeof(float));
        const F a = V::mul(V::sub(V::load(last), V::load(b.centre + i)), scale);
        const F c = V::mul(V::sub(V::load(last + 16), V::load(b.centre + i + 16)), scale);
        V::store(u + i, a);
        V::store(u + i + 16, c);
        sum0 = V::fma(a, a, sum0);
        sum1 = V::fma(c, c, sum1);
        top = V::max(top, V::max(V::abs(a), V::abs(c)));
    }
    *square = V::sum(V::add(sum0, sum1));
    *largest = V::largest(top);
}

// Register tiles are written with parameter packs: the compiler then sees constant indices and keeps
// every accumulator in a register, at -O2 too.
template <class V, int... p>
ADC_INLINE void fma_row(Pack<p...>, typename V::F* sum, typename V::F value,
                        const typename V::F* axis) {
    ((sum[p] = V::fma(value, axis[p], sum[p])), ...);
}

template <class V, int... q, int... p>
ADC_TARGET void project_tile(Pack<q...> queries, Pack<p...> panels, const BankView& b,
                             const float* u, const float* axes, float* z, std::int64_t z_stride) {
    using F = typename V::F;
    constexpr int P = panels.size();
    const std::int64_t block = 16 * b.stride;  // floats of one axis panel
    F total[queries.size() * P];
    for (F& t : total) t = V::zero();
    for (std::int64_t start = 0; start < b.stride; start += kProjectBlock) {
        const std::int64_t stop = start + kProjectBlock < b.stride ? start + kProjectBlock : b.stride;
        F sum[queries.size()][P];
        ((sum[q][0] = V::zero()), ...);
        for (int n = 1; n < P; ++n) ((sum[q][n] = V::zero()), ...);
        for (std::int64_t i = start; i < stop; ++i) {
            const F axis[P] = {V::load(axes + p * block + 16 * i)...};
            (fma_row<V>(panels, sum[q], V::set(u[q * b.stride + i]), axis), ...);
        }
        for (int n = 0; n < P; ++n) ((total[q * P + n] = V::add(total[q * P + n], sum[q][n])), ...);
    }
    for (int n = 0; n < P; ++n) (V::store(z + q * z_stride + 16 * n, total[q * P + n]), ...);
}

template <class V, int P>
ADC_TARGET void project_columns(const BankView& b, const float* u, int n, const float* axes,
                                float* z, std::int64_t z_stride) {
    int q = 0;
    for (; q + V::kProjectQueries <= n; q += V::kProjectQueries)
        project_tile<V>(Count<V::kProjectQueries>(), Count<P>(), b, u + q * b.stride, axes, z + q * z_stride, z_stride);
    for (; q < n; ++q) project_tile<V>(Count<1>(), Count<P>(), b, u + q * b.stride, axes, z + q * z_stride, z_stride);
}

template <class V>
ADC_TARGET void project_impl(const BankView& b, const float* u, int n, float* z) {
    const std::int64_t z_stride = 16 * b.axis_panels;
    int p = 0;
    for (; p + V::kProjectPanels <= b.axis_panels; p += V::kProjectPanels)
        project_columns<V, V::kProjectPanels>(b, u, n, b.axes + p * 16 * b.stride, z + 16 * p, z_stride);
    for (; p < b.axis_panels; ++p)
        project_columns<V, 1>(b, u, n, b.axes + p * 16 * b.stride, z + 16 * p, z_stride);
}

template <class V>
ADC_TARGET void boxes_impl(const float* box_panels, int count, const BoxQuery& query, float* out) {
    using F = typename V::F;
    const F none = V::zero();
    for (int i = 0; i < count; ++i) {
        const float* box = box_panels + static_cast<std::int64_t>(i) * kBoxTerms * kLanes;
        F sum = V::zero();
        for (int axis = 0; axis <= kBoxAxes; ++axis) {
            const F under = V::sub(V::load(box + 32 * axis), V::set(query.high[axis]));
            const F over = V::sub(V::set(query.low[axis]), V::load(box + 32 * axis + 16));
            const F gap = V::max(V::max(under, over), none);
            sum = V::fma(gap, gap, sum);
        }
        V::store(out + 16 * i, sum);
    }
}

template <class V>
ADC_INLINE typename V::F add_square(typename V::F sum, typename V::F x, typename V::F y) {
    const typename V::F difference = V::sub(x, y);
    return V::fused(difference, difference, sum);
}

template <class V, int... q>
ADC_INLINE void add_squares(Pack<q...>, typename V::F* sum, const typename V::F* x, const float* row) {
    const typename V::F y = sizeof...(q) > 1 ? V::kept(V::load(row)) : V::load(row);
    ((sum[q] = add_square<V>(sum[q], x[q], y)), ...);
}

// Running sums of Q queries with N rows: 32 each, of the columns with the same place among 32.
template <class V, std::size_t Q, std::size_t N>
struct Running {
    typename V::F low[N][Q], high[N][Q];
};

template <class V, int... q, int... n>
ADC_INLINE void clear(Pack<q...>, Pack<n...>, Running<V, sizeof...(q), sizeof...(n)>& sums) {
    for (std::size_t r = 0; r < sizeof...(n); ++r) {
        ((sums.low[r][q] = V::zero()), ...);
        ((sums.high[r][q] = V::zero()), ...);
    }
}

// The columns from `first` to `end`, the last ones before the others.
template <class V, int... q, int... n>
ADC_INLINE void add_columns(Pack<q...> queries, Pack<n...>, const float* const* x, const float* const* y, std::int64_t first,
                            std::int64_t end, Running<V, sizeof...(q), sizeof...(n)>& sums) {
    using F = typename V::F;
    for (std::int64_t i = end - 32; i >= first; i -= 32) {
        const F low[] = {V::load(x[q] + i)...};
        (add_squares<V>(queries, sums.low[n], low, y[n] + i), ...);
        const F high[] = {V::load(x[q] + i + 16)...};
        (add_squares<V>(queries, sums.high[n], high, y[n] + i + 16), ...);
    }
}

template <class V, int... q>
ADC_INLINE void finish_row(Pack<q...>, const typename V::F* low, const typename V::F* high, float* out, std::int64_t out_stride) {
    ((out[q * out_stride] = V::sum(V::add(low[q], high[q]))), ...);
}

// The sums of two queries with 3 to 5 rows.
template <class V, int... n>
ADC_INLINE void finish_two(Pack<n...>, const Running<V, 2, sizeof...(n)>& sums, float* out, std::int64_t out_stride) {
    // Of four, where three are wanted: the fourth is not looked at.
    const typename V::F first[] = {V::add(sums.low[n][0], sums.high[n][0])..., V::zero()};
    const typename V::F second[] = {V::add(sums.low[n][1], sums.high[n][1])..., V::zero()};
    V::sums(first, second, out, out + out_stride);
    if constexpr (sizeof...(n) == 5) {
        out[4] = V::sum(first[4]);
        out[out_stride + 4] = V::sum(second[4]);
    }
}

// out[q * out_stride + n] from the running sums.
template <class V, int... q, int... n>
ADC_INLINE void finish_distances(Pack<q...> queries, Pack<n...> rows, const Running<V, sizeof...(q), sizeof...(n)>& sums, float* out,
                                 std::int64_t out_stride) {
    constexpr std::size_t Q = sizeof...(q);
    if constexpr (V::kSorts && Q == 2 && sizeof...(n) >= 3) {
        finish_two<V>(rows, sums, out, out_stride);
    } else if constexpr (V::kSorts && Q == 4 && sizeof...(n) == 2) {
        const typename V::F first[] = {V::add(sums.low[n][0], sums.high[n][0])..., V::add(sums.low[n][1], sums.high[n][1])...};
        const typename V::F second[] = {V::add(sums.low[n][2], sums.high[n][2])..., V::add(sums.low[n][3], sums.high[n][3])...};
        float sum[8];
        V::sums(first, second, sum, sum + 4);
        ((out[q * out_stride] = sum[2 * q], out[q * out_stride + 1] = sum[2 * q + 1]), ...);
    } else {
        (finish_row<V>(queries, sums.low[n], sums.high[n], out + n, out_stride), ...);
    }
}

// Every query x[q] with every row y[n]: out[q * out_stride + n].
template <class V, int... q, int... n>
ADC_INLINE void distance_tile(Pack<q...> queries, Pack<n...> rows, const float* const* x, const float* const* y,
                              std::int64_t stride, float* out, std::int64_t out_stride) {
    Running<V, sizeof...(q), sizeof...(n)> sums;
    clear<V>(queries, rows, sums);
    add_columns<V>(queries, rows, x, y, 0, stride, sums);
    finish_distances<V>(queries, rows, sums, out, out_stride);
}

// N rows, which stay in the first-level cache, with all queries.
template <class V, int N>
ADC_TARGET void take_rows(const BankView& b, const float* const* x, int count, std::int64_t first, float* out) {
    const std::int64_t stride = kLanes * b.panels;
    const float* y[N];
    for (int n = 0; n < N; ++n) y[n] = b.row(first + n);
    int q = 0;
    for (; q + V::kPairQueries <= count; q += V::kPairQueries)
        distance_tile<V>(Count<V::kPairQueries>(), Count<N>(), x + q, y, b.stride, out + q * stride + first, stride);
    for (; q < count; ++q) distance_tile<V>(Count<1>(), Count<N>(), x + q, y, b.stride, out + q * stride + first, stride);
}

template <class V>
ADC_TARGET void all_distances_impl(const BankView& b, const float* const* x, int count, float* out) {
    std::int64_t i = 0;
    for (; i + V::kPairRows <= b.rows; i += V::kPairRows) take_rows<V, V::kPairRows>(b, x, count, i, out);
    for (; i < b.rows; ++i) take_rows<V, 1>(b, x, count, i, out);
    for (; i < kLanes * b.panels; ++i)
        for (int q = 0; q < count; ++q) out[q * kLanes * b.panels + i] = std::numeric_limits<float>::infinity();
}

// Takes tiles of n rows while there are so many; returns the first row that is left.
template <class V, int n>
ADC_INLINE int take_rows(const BankView& b, const float* x, const std::int32_t* rows, int i, int count, float* out) {
    for (; i + n <= count; i += n) {
        const float* y[n];
        for (int r = 0; r < n; ++r) y[r] = b.row(rows[i + r]);
        distance_tile<V>(Count<1>(), Count<n>(), &x, y, b.stride, out + i, 0);
    }
    return i;
}

template <class V>
ADC_TARGET void distances_impl(const BankView& b, const float* x, const std::int32_t* rows,
                               int count, float* out) {
    int i = take_rows<V, V::kDistanceRows>(b, x, rows, 0, count, out);
    // The fewer rows, the fewer sums hide how long each takes.
    if (V::kDistanceRows > 3) i = take_rows<V, 3>(b, x, rows, i, count, out);
    if (V::kDistanceRows > 2) i = take_rows<V, 2>(b, x, rows, i, count, out);
    take_rows<V, 1>(b, x, rows, i, count, out);
}

template <class V>
ADC_TARGET void ranks_impl(const float* values, int count, std::uint8_t* ranks) {
    const typename V::F low = V::load(values), high = V::load(values + 16);
    const std::uint32_t real = count >= 32 ? ~0u : (1u << count) - 1;
    for (int i = 0; i < count; ++i) {
        const typename V::F value = V::set(values[i]);
        const std::uint32_t equal_or_less = V::below(low, value) | V::below(high, value) << 16;
        const std::uint32_t more_or_equal = V::below(value, low) | V::below(value, high) << 16;
        const std::uint32_t earlier = (1u << i) - 1;
        const std::uint32_t before = real & (~more_or_equal | (equal_or_less & earlier));
        ranks[i] = static_cast<std::uint8_t>(V::count(before & 0xffff) + V::count(before >> 16));
    }
}

template <class V>
ADC_TARGET void precise_impl(const float* x, const float* const* rows, int count,
                             std::int64_t stride, double* out) {
    for (int n = 0; n < count; ++n) {
        typename V::D sum = V::no_doubles();
        for (std::int64_t i = 0; i < stride; i += 16) V::add_squares(sum, x + i, rows[n] + i);
        out[n] = V::sum_doubles(sum);
    }
}

template <class V>
ADC_TARGET bool encode_impl(const BankView& b, const float* shift, const float* x, float step, void* codes,
                            Quantised* out) {
    using F = typename V::F;
    const F scale = V::set(b.scale / step);
    F error = V::zero(), square = V::zero(), top = V::zero();
    float last[16] = {};
    const std::int64_t full = b.columns / 16 * 16;
    if (full < b.columns && b.picks == nullptr) std::memcpy(last, x + full, static_cast<std::size_t>(b.columns - full) * sizeof(float));
    for (std::int64_t i = 0; i < b.columns; i += 16) {
        const bool picked = b.picks != nullptr;
        for (int lane = 0; picked && lane < kLanes; ++lane) last[lane] = x[2 * i + b.picks[i + lane]];
        const F value = V::fma(V::load(picked || i >= full ? last : x + i), scale, V::load(shift + i));
        const F code = V::round(value);
        const F rest = V::sub(value, code);
        error = V::fma(rest, rest, error);
        square = V::fma(code, code, square);  // integers below 2^24: exact up to 16k columns a lane
        top = V::max(top, V::abs(code));
        V::store_codes(code, codes, i);
    }
    const double squares = static_cast<double>(V::sum(square));
    out->step = step;
    out->square = squares * step * step;
    out->error = static_cast<double>(std::sqrt(V::sum(error))) * step;
    out->bias = V::bias(static_cast<const unsigned char*>(codes), b.stride);
    // The sum is NaN where a value is, whatever the largest is.
    return V::largest(top) <= 127.0f && squares <= 1e9;
}

template <class V, bool row>
ADC_TARGET Quantised quantise_any(const float* values, std::int64_t count, float largest, void* codes) {
    using F = typename V::F;
    Quantised q;
    if (largest < 0) {
        F high = V::zero();
        for (std::int64_t i = 0; i < count; i += 16) high = V::max(high, V::abs(V::load(values + i)));
        largest = V::largest(high);
    }
    q.step = largest > 0 ? largest * (1.0f / 127.0f) : 1.0f;
    // A tiny step has no finite inverse; codes 0 with the whole length as error stay correct.
    const float inverse = q.step > 1e-30f ? 1.0f / q.step : 0.0f;
    const F scale = V::set(inverse), step = V::set(q.step);
    F error = V::zero(), square = V::zero();
    for (std::int64_t i = 0; i < count; i += 16) {
        const F value = V::load(values + i);
        const F code = V::round(V::mul(value, scale));  // within ±127, as |value| <= largest
        const F rest = V::sub(value, V::mul(code, step));
        error = V::fma(rest, rest, error);
        square = V::fma(code, code, square);
        if (row)
            V::store_signed(code, static_cast<std::int8_t*>(codes) + i);
        else
            V::store_codes(code, codes, i);
    }
    q.error = std::sqrt(V::sum(error));
    q.square = static_cast<double>(V::sum(square)) * q.step * q.step;
    return q;
}

template <class V>
ADC_TARGET Quantised quantise_impl(const float* values, std::int64_t count, float largest, void* codes) {
    return quantise_any<V, false>(values, count, largest, codes);
}

template <class V>
ADC_TARGET Quantised quantise_row_impl(const float* values, std::int64_t count, float largest,
                                       std::int8_t* codes) {
    return quantise_any<V, true>(values, count, largest, codes);
}

template <class V>
ADC_TARGET std::int32_t bias_impl(const void* codes, std::int64_t count) {
    return V::bias(static_cast<const unsigned char*>(codes), count);
}

#include "bank_kernels_int8.hpp"

#include "bank_kernels_near.hpp"

#include "bank_kernels_coreset.hpp"

template <class V>
Kernels kernels_of(const char* name) {
    Kernels k;
    k.name = name;
    k.tile = V::kTileQueries;
    k.direct_rows = V::kDirectRows;
    k.direct_half = V::kDirectHalf;
    k.code_bytes = V::kCodeBytes;
    k.listed_distances = listed_distances_impl<V>;
    k.encode_tile = encode_tile_impl<V>;
    k.likely = likely_impl<V>;
    k.values_of_fours = values_of_fours_impl<V>;
    k.list_rows = list_rows_impl<V>;
    k.in_order = in_order_impl<V>;
    k.order_all = order_all_impl<V>;
    k.not_listed = not_listed_impl<V>;
    k.centre = centre_impl<V>;
    k.encode = encode_impl<V>;
    k.quantise = quantise_impl<V>;
    k.quantise_row = quantise_row_impl<V>;
    k.bias = bias_impl<V>;
    k.project = project_impl<V>;
    k.boxes = boxes_impl<V>;
    k.values = values_impl<V>;
    k.sift = sift_impl<V>;
    k.collect = collect_impl<V>;
    k.fetch = fetch_impl<V>;
    k.check = check_impl<V>;
    k.roughly_kth = roughly_kth_impl<V>;
    k.distances = distances_impl<V>;
    k.all_distances = all_distances_impl<V>;
    k.ranks = ranks_impl<V>;
    k.precise = precise_impl<V>;
    k.within = within_impl<V>;
    k.closest = closest_impl<V>;
    k.pairs = pairs_impl<V>;
    k.listed = listed_impl<V>;
    k.spread = spread_impl<V>;
    k.halve = halve_impl<V>;
    return k;
}
