// One thread's part of a search: blocks of queries against the whole bank.
#ifndef ADCOMPILE_BANK_WORKER_HPP
#define ADCOMPILE_BANK_WORKER_HPP

#include <cstdint>
#include <memory>

#include "bank_bounds.hpp"
#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_search.hpp"
#include "bank_top.hpp"

namespace adc::search {

constexpr int kBlock = 48;        // queries handled together
constexpr int kListed = 64;       // panels bounded at once by the tree
constexpr int kNearGroups = 4;    // groups the tree looks at first
constexpr int kFirstPanels = 32;  // panels that give the dense scan its first limit
constexpr int kDensePanels = 32;  // panels it takes at once thereafter

class Worker {
public:
    Worker(const BankView& bank, const Kernels& kernels);
    bool allocate();  // false: no memory

    // Searches `count` <= kBlock queries. False when one of them is not finite.
    bool run(const float* queries, int count, int k, std::int64_t* indices, double* squared);

    adc_search_counts counts = {};

private:
    struct Prepared {        // one query, centred and scaled: u
        const float* x;      // as given, zero-padded to the stride
        float square;        // |u|²
        float largest;       // of |u_i|
        bool slow;           // too long for float32 bounds
    };
    struct Dense;            // bank_dense.cpp

    bool prepare(const float* queries, int count, int k);
    void exhaustive(int i);
    void evaluate(int i, std::int32_t* rows, int count);
    void offer(int i, const std::int32_t* rows, int count);
    int search_tree(int* list, int count);

    int tree(int* list, int count);
    bool start_tree(int i, int previous);
    int nearest_groups(const float* group_bounds, std::int64_t* nearest) const;
    int list_panels(int i, std::int64_t group, int listed);
    bool scan(int i, int panels, bool first, float allowed);
    void greedy(int i, int panels);
    void refine(int i, int count);

    void dense(const int* list, int count, int k);
    Dense encode(int i, int place, float* factor);
    void look(const Dense& d, const float* values, std::int64_t first, int panels, int k);
    float guess(const Dense& d, const float* values, std::int64_t first, int panels, int k);
    void consider(const Dense& d, int count);

    const BankView& bank_;
    const Kernels& kernels_;
    double margin_;
    bool mostly_dense_ = false;
    float dense_cost_;                // of one query's scan
    float tail_cost_;                 // of the tails of a panel
    float exact_cost_;                // of one row in float32
    float spent_[kBlock] = {};        // by a query's tree search so far
    std::int32_t seeds_[ADC_MAX_NEIGHBOURS] = {};  // what the last query of the last block found
    int seed_count_ = 0;
    AlignedBytes memory_;
    std::unique_ptr<Top[]> tops_;
    std::unique_ptr<Bounds[]> query_bounds_;
    Prepared prepared_[kBlock];
    float* u_ = nullptr;
    float* padded_ = nullptr;       // only where columns != stride
    float* z_ = nullptr;
    unsigned char* codes_ = nullptr;
    float* values_ = nullptr;       // dense
    float* group_bounds_ = nullptr;
    std::int32_t* panels_ = nullptr;
    std::int32_t* rows_ = nullptr;
    float* bounds_ = nullptr;       // 16 for each of panels_
    float* row_bounds_ = nullptr;   // one for each of rows_
    unsigned char* tail_codes_ = nullptr;
};

}  // namespace adc::search

#endif
