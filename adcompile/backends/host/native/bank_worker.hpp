// One thread's part of a search: blocks of queries against the whole bank.
#ifndef ADCOMPILE_BANK_WORKER_HPP
#define ADCOMPILE_BANK_WORKER_HPP

#include <cstdint>
#include <memory>

#include "bank_axes.hpp"
#include "bank_bounds.hpp"
#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_search.hpp"
#include "bank_top.hpp"

namespace adc::search {

constexpr int kBlock = 400;       // queries that scan a bank's groups together, at most
constexpr int kDenseBlock = 96;   // queries that are compared with every row together
constexpr int kProjected = 12;    // queries projected on the axes together
constexpr int kNearGroups = 4;    // groups that give a query its first limit
constexpr int kListedQueries = 8; // queries whose rows are listed before they are tested
constexpr int kCopiedPanels = 4;  // panels of axes a small bank's copy of them may have
constexpr int kDensePanels = 32;  // panels the dense scan takes at once
constexpr int kDirectPanels = kNearPanels; // panels of a bank that bank_direct.cpp or bank_nearest.cpp may search
constexpr int kDirectTile = kNearTile;     // queries taken together then
constexpr double kLongest = 1e12; // |u|², and its limits: squares of it are far from overflow in float32

// Rows listed at once, by either scan, and what a compressed store may overwrite.
constexpr int kListedPanels = kNearGroups * kGroupPanels > kDensePanels ? kNearGroups * kGroupPanels : kDensePanels;
constexpr int kListed = kLanes * kListedPanels + kLanes;

// The queries of a call and where their answers go, k of each.
struct Batch {
    const float* queries = nullptr;
    std::int64_t count = 0;
    int k = 0;
    std::int64_t* indices = nullptr;
    double* squared = nullptr;
    std::int64_t width = 0;  // of the map they come from, if those of 2 x 2 positions are searched together

    // The query that is searched as number i: the positions of two rows of the map, four by four.
    std::int64_t place(std::int64_t i) const {
        if (width == 0 || i >= count / (2 * width) * (2 * width)) return i;
        const std::int64_t in_rows = i % (2 * width), in_four = i % kFour;
        return i - in_rows + in_rows / kFour * 2 + in_four % 2 + in_four / 2 * width;
    }
};

class Worker {
public:
    Worker(const BankView& bank, const Kernels& kernels);
    bool allocate();  // false: no memory

    // Whether bank_small.cpp may search a bank: then BankView::axes_copy is needed.
    static bool is_small(const BankView& bank) {
        return bank.axis_panels > 0 && bank.axis_panels <= kCopiedPanels && bank.panels <= kDensePanels && bank.rows >= kLanes;
    }

    // Queries a call may take.
    int block() const { return bank_.axis_panels > 0 && !is_small(bank_) ? kBlock : kDenseBlock; }

    // Searches `count` <= block() queries from the `first` of the batch's order on. False when one of them is
    // not finite.
    bool run(const Batch& batch, std::int64_t first, int count);

    // Whether queries that are alike in many columns should follow each other, kNearTile at a time.
    bool likes_fours(int k) const { return of_few(k) && !directly(k); }

    adc_search_counts counts = {};

private:
    struct Query {
        const float* x;      // as given, zero-padded to the stride
        Point whole;
        bool slow;           // too long for float32 bounds
    };

    void begin(int i, const float* x);
    void start_list(int i, int k);
    const float* compared(const float* x);
    bool encode(int i, float* u, float* square);
    bool encode(int i);
    void set_shift();
    bool finite(int i) const;
    void exhaustive(int i);
    void evaluate(int i, std::int32_t* rows, int count);
    void offer(int i, const std::int32_t* rows, int count);
    static int rows_in(const std::uint16_t* masks, std::int64_t first_panel, int panels, std::int32_t* rows);
    unsigned char* whole_codes(int i) const { return codes_ + i * seen_.code_stride * kernels_.code_bytes; }
    unsigned char* head_codes(int i) const { return head_codes_ + i * bank_.axis_count() * kernels_.code_bytes; }

    // bank_scan.cpp
    bool scan(int count, int k);
    void start_scan(int i, const float* z, float square, int k);
    void first_limit(int i, const std::int64_t* groups, int count, int k);
    int nearest_groups(const float* group_bounds, std::int64_t* nearest) const;
    void scan_group(const int* list, int count, std::int64_t group);
    void look(int i, std::int64_t group, const std::int32_t* listed, int count);
    int check(int i, const std::int32_t* rows, int count);
    void refine(int i, int count);
    int panels_of(std::int64_t group) const;

    // bank_small.cpp
    bool along_copy(int k) const { return bank_.axes_copy != nullptr && k <= kLanes; }
    bool small(int count, int k);
    void project_codes(const int* list, int tile);
    void choose(int i, const float* values, int k);

    // bank_nearest.cpp
    bool of_few(int k) const { return k <= kLanes && bank_.axis_panels == 0 && bank_.panels <= kDirectPanels; }
    void set_near_limits();
    bool nearest(const Batch& batch, std::int64_t start, int count);
    bool look_at_tile(int first);
    bool evaluate_likely(int first, int k);
    void set_slack(bool many, int more);
    bool decide_slowly(int first, int t, int k);
    bool add_within(int first, int t, int k);

    // bank_direct.cpp
    bool directly(int k) const;
    bool direct(int count, int k);
    void offer_nearest(int i, const float* values, int k);

    // bank_dense.cpp
    bool dense(int count, int k);
    bool first_chunk(int i, const float* values, int panels, int k, bool fresh);

    const BankView& bank_;
    const BankView& seen_;               // the bank in half its columns, where these suffice
    const Kernels& kernels_;
    double margin_;
    NearLimits near_limits_ = {};
    float slack_ = 1.06f;                // of Kernels::likely
    std::int32_t seeds_[ADC_MAX_NEIGHBOURS] = {};  // what the last query of the last block found
    int seed_count_ = 0;
    AlignedBytes memory_;
    std::unique_ptr<Top[]> tops_;
    std::unique_ptr<Bounds[]> bounds_;
    std::unique_ptr<Query[]> queries_;
    std::unique_ptr<Probe[]> probes_;    // of a tile
    float* picked_ = nullptr;            // the columns of one query that are compared
    float* u_ = nullptr;                 // of kProjected queries
    float* z_ = nullptr;                 // their coordinates
    float* shift_ = nullptr;             // what `encode` adds to a scaled query
    double shift_error_ = 0;             // and how far its rounding takes the query, at most
    float* padded_ = nullptr;            // queries, only where columns != stride
    unsigned char* codes_ = nullptr;     // of all columns
    unsigned char* head_codes_ = nullptr;
    unsigned char* tile_ = nullptr;      // codes of a tile, one query after another
    float* group_bounds_ = nullptr;      // by query and group
    float* values_ = nullptr;
    std::uint16_t* masks_ = nullptr;
    std::int32_t* rows_ = nullptr;
    std::int32_t* listed_ = nullptr;     // rows that the axes left to kListedQueries queries
    float* row_values_ = nullptr;
    std::unique_ptr<NearTile> near_;
};

}  // namespace adc::search

#endif
