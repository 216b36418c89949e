// The k nearest rows found so far for one query, decided as if in exact arithmetic.
#ifndef ADCOMPILE_BANK_TOP_HPP
#define ADCOMPILE_BANK_TOP_HPP

#include <cstdint>

#include "bank_kernels.hpp"
#include "bank_search.hpp"

namespace adc::search {

// A row's squared distance is known as a float32 value whose relative error is below `margin`
// (outside the range where float32 keeps that promise: as the double-precision value). Values that
// are closer to each other than their margins are compared in double precision; equal ones by the
// row's original number. So the k rows, and their order, are those of a brute-force search in
// double precision, while almost every evaluation is in float32.
class Top {
public:
    void start(const BankView* bank, const Kernels* kernels, const float* query, int k, double margin);

    // No row farther than this, in squared distance, can be among the k nearest.
    double limit() const { return limit_; }

    static constexpr float kSmallest = 8.077935669463161e-28f;  // 2^-90
    static constexpr float kLargest = 1.329227995784916e+36f;   // 2^120

    // Whether a sum of squares in float32 keeps its relative error: neither overflow nor underflow is near.
    static bool keeps_error(float squared) { return squared >= kSmallest && squared <= kLargest; }

    int k() const { return k_; }

    bool contains(std::int32_t row) const;

    // `distance` is what Kernels::distances gave for this row. Offer a row once.
    void offer(std::int32_t row, float distance);

    // The same for `count` <= kRanked rows, distances with room for kRanked.
    void offer(const std::int32_t* rows, const float* distances, int count);

    // The rows that are nearest so far, at most k; returns how many.
    int rows(std::int32_t* out) const;

    void finish(std::int64_t* indices, double* squared);

private:
    struct Entry {
        double value;
        double precise;  // negative: not computed yet
        std::int32_t row;
    };

    double precise(Entry& entry) const;
    void settle();                      // cuts the list to k, for certain
    void order_precisely(int first, int last);
    void refresh_limit();

    static constexpr int kSpare = 64;
    const BankView* bank_ = nullptr;
    const Kernels* kernels_ = nullptr;
    const float* query_ = nullptr;
    int k_ = 0;
    int count_ = 0;
    double margin_ = 0;
    double limit_ = 0;
    Entry entries_[ADC_MAX_NEIGHBOURS + kSpare];  // ascending by value
};

}  // namespace adc::search

#endif
