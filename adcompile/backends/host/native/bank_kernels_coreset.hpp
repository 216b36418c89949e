// The kernels that only the coreset needs. Included by bank_kernels_impl.hpp, on the same terms.
template <class V>
ADC_TARGET int scan_centres_impl(const float* panel, const float* limits, const float* centres,
                                 std::int32_t* listed, int count, std::uint16_t* masks) {
    using F = typename V::F;
    const F limit = V::load(limits), square = V::load(panel);
    int kept = 0;
    for (int i = 0; i < count; ++i) {
        const float* c = centres + static_cast<std::int64_t>(listed[i]) * kCentreTerms;
        F even = square, odd = V::zero();
        for (int term = 0; term < kHead; term += 2) {
            even = V::fma(V::load(panel + 16 * (term + 1)), V::set(c[term]), even);
            odd = V::fma(V::load(panel + 16 * (term + 2)), V::set(c[term + 1]), odd);
        }
        even = V::fma(V::load(panel + 16 * (kHead + 1)), V::set(c[kHead]), even);
        const unsigned mask = V::below(V::add(even, odd), V::sub(limit, V::set(c[kHead + 1])));
        masks[kept] = static_cast<std::uint16_t>(mask);
        listed[kept] = listed[i];
        kept += mask != 0 ? 1 : 0;
    }
    return kept;
}

template <class V>
ADC_TARGET void reachable_impl(const float* values, int count, const float* reach,
                               const float* errors, const float* offsets, std::uint16_t* masks) {
    using F = typename V::F;
    const F base = V::load(reach);
    for (int i = 0; i < count; ++i) {
        const F far = V::add(base, V::set(errors[i]));
        const F limit = V::fma(far, far, V::set(offsets[i]));
        masks[i] = static_cast<std::uint16_t>(masks[i] & V::below(V::load(values + 16 * i), limit));
    }
}
