// How far each row of a coreset job is from the picks, decided as if in exact arithmetic.
#ifndef ADCOMPILE_CORESET_NEAREST_HPP
#define ADCOMPILE_CORESET_NEAREST_HPP

#include <cstdint>
#include <vector>

#include "bank_kernels.hpp"

namespace adc::search {

struct Interval {
    double low, high;
};

// Squared distances here are those of the scaled rows: BankView::scale squared, a power of two, times
// those of the rows. Of a row only an interval is known that holds its squared distance to the nearest pick, and a few
// picks of which one is the nearest. An evaluation in float32 makes the interval narrow, one in
// double precision a number; both read whole rows, so they wait until they are needed. Different
// rows may be worked on at the same time.
class Nearest {
public:
    // Throws std::bad_alloc.
    Nearest(const BankView& view, const Kernels& kernels);

    // The upper end: infinite before the first pick, -1 of a pick.
    double squared(std::int32_t row) const { return entries_[static_cast<std::size_t>(row)].high; }

    // Lists, in order, rows of [first, last) whose upper end is at least `floor`, and some that are
    // almost as far. `first` is a multiple of 16; room for 16 more. Returns how many.
    int far(std::int64_t first, std::int64_t last, double floor, std::int32_t* rows) const;

    // The upper end is the distance in double precision.
    bool exact(std::int32_t row) const { return entries_[static_cast<std::size_t>(row)].exact; }

    // Sets the upper end of a row of which no pick is known.
    void bound(std::int32_t row, double high) { put(row, {high, {}, {}, kNone, 0, false}); }

    // Lowers the upper end: no farther than this from a pick that the row need not know.
    void lower(std::int32_t row, std::int32_t pick, double high);

    // Starts to load what that needs.
    void fetch_bound(std::int32_t row) const {
#if defined(__GNUC__)
        __builtin_prefetch(&entries_[static_cast<std::size_t>(row)], 1);
#else
        static_cast<void>(row);
#endif
    }

    // Where the upper end comes from `lower`: makes it the distance in float32 to that pick, a candidate then.
    void sharpen(std::int32_t row);

    // Takes a pick into account, whose squared distance is known to be in the interval.
    void offer(std::int32_t row, std::int32_t pick, Interval squared);

    // Whether a row that knows its nearest pick is at least as far as `floor`, by distances in float32. If so, one
    // candidate is left.
    bool still_far(std::int32_t row, double floor);

    // Starts to load what that needs.
    void fetch(std::int32_t row) const;

    // Makes the distance exact.
    void settle(std::int32_t row);

    void become_pick(std::int32_t row) { put(row, {-1, {}, {}, kNone, 0, true}); }

private:
    static constexpr int kCandidates = 6;
    static constexpr std::int32_t kNone = -1;
    // A cache line. One of the picks is the nearest; `lows` are at most their squared distances.
    struct alignas(64) Entry {
        double high;
        float lows[kCandidates];
        std::int32_t picks[kCandidates];
        std::int32_t guess;  // the pick of which `lower` spoke last
        std::int8_t count;
        bool exact;

        int likeliest() const {
            int best = 0;
            for (int i = 1; i < count; ++i)
                if (lows[i] < lows[best]) best = i;
            return best;
        }
    };

    Interval interval(float distance) const;
    void measure(std::int32_t row, const std::int32_t* picks, int count, Entry& e) const;

    static bool take(Entry& e, std::int32_t pick, Interval squared);
    void put(std::int32_t row, const Entry& e);
    void put_high(std::int32_t row, double high) { minus_[static_cast<std::size_t>(row)] = -static_cast<float>(high * (1 + 1e-7)); }
    double precise(std::int32_t row, std::int32_t pick) const;

    const BankView& view_;
    const Kernels& kernels_;
    const double scale_square_, margin_;
    std::vector<Entry> entries_;
    std::vector<float> minus_;  // at most -high
};

}  // namespace adc::search

#endif
