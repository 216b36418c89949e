// The farthest row of a coreset job, again and again.
#ifndef ADCOMPILE_CORESET_ROUNDS_HPP
#define ADCOMPILE_CORESET_ROUNDS_HPP

#include <cstdint>
#include <vector>

#include "bank_team.hpp"
#include "coreset_cells.hpp"
#include "coreset_layout.hpp"
#include "coreset_list.hpp"
#include "coreset_nearest.hpp"
#include "coreset_panels.hpp"
#include "coreset_picks.hpp"

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
    struct Nearer;

    void start(std::int32_t pick);
    void thin_pool(std::int32_t pick);
    void thin_panels(std::int32_t pick, Point& head, Point& whole, std::int64_t first, int panels);
    void leave_pool(std::int32_t row);
    void start_round();
    void fill_pool();
    struct Member;
    void order_by_age();
    template <class Step>
    void keep(std::int64_t block, std::vector<std::int32_t>& out, const Step& step);
    int glance(Member& m, const std::int32_t* rows, int count, std::int32_t* found);
    int catch_up(Member& m, const std::int32_t* rows, int count, std::int32_t* found);
    void keep_farthest();

    const CoresetLayout& layout_;
    const BankView& view_;
    const Kernels& kernels_;
    Team& team_;
    const double scale_square_;
    Nearest nearest_;
    std::vector<std::int32_t> done_;    // per row: of how many picks nearest_ knows
    std::vector<std::int32_t> rounds_;  // in which round there came to be so many picks
    std::int32_t round_ = 0;
    Picks picks_;
    Cells cells_;

    double floor_;                      // rows at least this far are in the pool
    double shrink_;                     // by which it goes down
    std::vector<std::int32_t> pool_;    // rows
    std::vector<std::int32_t> lane_;    // per row: where it is in the pool
    Panels pool_heads_;
    PointList pool_wholes_;
    std::vector<Farthest> heap_;        // of the pool; entries may be out of date
    std::vector<std::int32_t> far_;     // rows in question
    std::vector<std::int32_t> ordered_; // the same in the order in which they are seen to
    std::vector<std::int32_t> found_;   // per block of them: those that are as far as the floor
    std::vector<std::int32_t> counts_;  // … how many
    struct Member {
        Picks::Scratch scratch;
    };
    std::vector<Member> members_;       // one for each thread
};

}  // namespace adc::search

#endif
