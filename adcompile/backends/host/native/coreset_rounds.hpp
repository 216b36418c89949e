// The farthest row of a coreset job, again and again.
#ifndef ADCOMPILE_CORESET_ROUNDS_HPP
#define ADCOMPILE_CORESET_ROUNDS_HPP

#include <cstdint>
#include <vector>

#include "coreset_layout.hpp"

namespace adc::search {

class Rounds {
public:
    // Throws std::bad_alloc.
    Rounds(const CoresetLayout& layout, const Kernels& kernels, Team& team, std::int64_t picks);

    struct Farthest {
        double squared;  // negative: every row is a pick
        std::int32_t row;
    };

    // Adds a pick; returns the row farthest from all so far, the lowest among equals.
    Farthest pick(std::int32_t row);

private:
    struct Scratch {
        std::vector<float> values, checked;
        std::vector<std::int32_t> near;
        std::vector<unsigned char> codes;
    };
    struct Nearer;

    void add(std::int32_t row);
    void thin_pool(std::int32_t pick);
    void start_round();
    void catch_up(std::int32_t row, Scratch& scratch);
    void fill_pool();
    void keep_farthest();
    float head_limit(double u_square) const;

    const CoresetLayout& layout_;
    const BankView& view_;
    const Kernels& kernels_;
    Team& team_;
    double scale_square_, head_slack_;
    std::int64_t seen_ = 0;             // picks so far
    std::vector<double> nearest_;       // per row: squared distance to the picks before `done`; -1: a pick
    std::vector<std::int32_t> done_;
    std::vector<std::int32_t> picks_;   // rows
    std::vector<float> pick_heads_;     // panels of 16
    AlignedBytes pick_codes_;
    std::vector<float> pick_terms_;
    BankView pick_view_;                // of the last two

    double floor_;                      // rows at least this far are in the pool
    double shrink_;                     // by which it goes down
    std::vector<std::int32_t> pool_;    // rows, in order
    std::vector<std::int32_t> lane_;    // per row: where it is in the pool
    std::vector<float> pool_heads_;     // panels of 16
    std::vector<Farthest> heap_;        // of the pool; entries may be out of date
    std::vector<std::int32_t> found_;   // per block of rows: those at least as far as the floor
    std::vector<std::int64_t> counts_;  // … how many
    std::vector<Scratch> scratch_;      // one for each thread
};

}  // namespace adc::search

#endif
