// Which picks a row of a coreset job may be near to: a guess, good enough to lower its upper end.
#ifndef ADCOMPILE_CORESET_CELLS_HPP
#define ADCOMPILE_CORESET_CELLS_HPP

#include <cstdint>
#include <vector>

#include "bank_team.hpp"
#include "coreset_layout.hpp"
#include "coreset_nearest.hpp"
#include "coreset_panels.hpp"
#include "coreset_picks.hpp"

namespace adc::search {

// The rows are grouped by the nearest of the first picks, an inverted file; a later pick is listed in the few cells
// whose first picks it is nearest to. A row looks at the list of its cell alone: the pick that is missed, seldom, is
// found when the row is compared with all of them.
class Cells {
public:
    // For `most` picks. Throws std::bad_alloc.
    Cells(const CoresetLayout& layout, const Kernels& kernels, const Picks& picks, std::int64_t most);

    // Lists the picks that came since the last time. From a certain number on the rows are grouped.
    void update(Team& team);

    // Orders `count` rows: those of a cell follow each other, and among them those that have seen about the same picks.
    void order(const std::int32_t* rows, int count, std::int32_t* out);

    // Lowers the upper ends of ordered rows by the picks that seem nearest of those that they have not seen.
    void glance(const std::int32_t* rows, int count, Nearest& nearest, Picks::Scratch& scratch);

private:
    static constexpr int kAges = 8;  // that are told apart

    struct Cell {
        Panels heads;
        std::vector<std::int32_t> picks;  // their numbers, ascending

        std::int32_t count() const { return static_cast<std::int32_t>(picks.size()); }
    };

    Cell& cell(std::int32_t row) { return cells_[of_[static_cast<std::size_t>(row)]]; }
    std::int32_t& seen(std::int32_t row) { return seen_[static_cast<std::size_t>(row)]; }
    void start(int cells);
    void group(Team& team);
    void list(std::int32_t pick);
    int tile(const std::int32_t* rows, int count);
    void look(const std::int32_t* rows, int count, Nearest& nearest, Picks::Scratch& scratch);

    const CoresetLayout& layout_;
    const Kernels& kernels_;
    const Picks& picks_;
    int wanted_;                      // number of cells; a multiple of 16, or 0 where these do not help
    std::int32_t listed_ = 0;         // picks
    std::vector<Cell> cells_;
    Panels centres_;
    std::vector<std::uint8_t> of_;    // per row: its cell
    std::vector<std::int32_t> seen_;  // per row: how many of its cell's list
    std::vector<std::int32_t> starts_;   // of `order`: per cell and age
    std::vector<std::uint16_t> keys_;
    std::vector<float> values_;
    std::vector<std::int32_t> near_;
};

}  // namespace adc::search

#endif
