// Int8 points that come one by one, in panels as Kernels::values takes them.
#ifndef ADCOMPILE_CORESET_PANELS_HPP
#define ADCOMPILE_CORESET_PANELS_HPP

#include <cstdint>
#include <cstring>
#include <vector>

#include "coreset_layout.hpp"

namespace adc::search {

class Panels {
public:
    explicit Panels(std::int64_t columns) { shadow_.columns = columns; }

    // `count` places without a point: far from everything.
    void clear(std::int64_t count) {
        codes_.clear();
        terms_.clear();
        grow((count + kLanes - 1) / kLanes);
    }

    // A point more than the `count` that there are.
    void append(std::int64_t count, const std::int8_t* codes, const PointTerms& terms) {
        if (count % kLanes == 0) grow(count / kLanes + 1);
        put(count, codes, terms);
    }

    // codes: `columns` of them.
    void put(std::int64_t place, const std::int8_t* codes, const PointTerms& terms) {
        std::int8_t* panel = &codes_[static_cast<std::size_t>(place / kLanes * kLanes * shadow_.columns)] + place % kLanes * 4;
        for (std::int64_t i = 0; i < shadow_.columns; i += 4) std::memcpy(panel + kLanes * i, codes + i, 4);
        *at(place, 0) = terms.step;
        *at(place, 1) = terms.base;
        *at(place, 2) = terms.error;
    }

    void remove(std::int64_t place) { *at(place, 1) = kFarAway; }

    const Shadow& shadow() const { return shadow_; }

private:
    void grow(std::int64_t panels) {
        std::int64_t place = static_cast<std::int64_t>(terms_.size()) / 3;
        codes_.resize(static_cast<std::size_t>(panels * kLanes * shadow_.columns));
        terms_.resize(static_cast<std::size_t>(panels * kLanes * 3));
        for (; place < panels * kLanes; ++place) remove(place);
        shadow_.codes = codes_.data();
        shadow_.terms = terms_.data();
    }

    float* at(std::int64_t place, int term) {
        return &terms_[static_cast<std::size_t>(place / kLanes * 3 * kLanes + term * kLanes + place % kLanes)];
    }

    Shadow shadow_;
    std::vector<std::int8_t> codes_;
    std::vector<float> terms_;
};

}  // namespace adc::search

#endif
