// Int8 points that come one by one, as Kernels::check takes them.
#ifndef ADCOMPILE_CORESET_LIST_HPP
#define ADCOMPILE_CORESET_LIST_HPP

#include <cstdint>
#include <cstring>
#include <new>

#include "coreset_layout.hpp"

namespace adc::search {

static_assert(sizeof(PointTerms) == kRowTerms * sizeof(float), "as in BankView::row_terms");

class PointList {
public:
    // `columns`: of each point, a multiple of 64.
    PointList(const BankView& of, std::int64_t columns) : view_(of) { view_.code_stride = columns; }

    // Room for `count` points; those there are lost. Throws std::bad_alloc.
    void clear(std::int64_t count) {
        if (!codes_.allocate(static_cast<std::size_t>(count * view_.code_stride), false) ||
            !terms_.allocate(static_cast<std::size_t>(count) * sizeof(PointTerms), false))
            throw std::bad_alloc();
        view_.row_codes = codes_.as<std::int8_t>();
        view_.row_terms = terms_.as<float>();
    }

    // The first `real` columns are the point's, the others are zero.
    void put(std::int64_t place, const std::int8_t* codes, std::int64_t real, const PointTerms& terms) {
        std::int8_t* to = codes_.as<std::int8_t>() + place * view_.code_stride;
        std::memcpy(to, codes, static_cast<std::size_t>(real));
        std::memset(to + real, 0, static_cast<std::size_t>(view_.code_stride - real));
        terms_.as<PointTerms>()[place] = terms;
    }

    const BankView& view() const { return view_; }
    const PointTerms& terms(std::int64_t place) const { return terms_.as<PointTerms>()[place]; }

private:
    BankView view_;
    AlignedBytes codes_, terms_;
};

}  // namespace adc::search

#endif
