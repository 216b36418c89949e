// One thread's part of a search: blocks of queries against the whole bank.
#ifndef ADCOMPILE_BANK_WORKER_HPP
#define ADCOMPILE_BANK_WORKER_HPP

#include <cstdint>
#include <memory>

#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_search.hpp"
#include "bank_top.hpp"

namespace adc {

constexpr int kBlock = 48;        // queries handled together
constexpr int kListed = 256;      // panels bounded at once by the tree
constexpr int kFirstPanels = 16;  // panels that give the dense scan its first limit
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
    struct Bounds;           // bank_tree.cpp
    struct Dense;            // bank_dense.cpp

    bool prepare(const float* queries, int count, int k);
    void exhaustive(int i);
    bool tree(int i, int previous);
    bool scan(const Bounds& bounds, Top& top, int panels, int i);
    void refine(const Bounds& bounds, Top& top, int found, int i);
    void dense(const int* list, int count, int k);
    void dense_tile(Dense* tile, int count, int k);
    void first_panels(const Dense& d, const float* values, int panels, int k);
    void evaluate(int i, const std::int32_t* rows, int count);

    const BankView& bank_;
    const Kernels& kernels_;
    double margin_;
    bool mostly_dense_ = false;
    AlignedBytes memory_;
    std::unique_ptr<Top[]> tops_;
    Prepared prepared_[kBlock];
    float* u_ = nullptr;
    float* padded_ = nullptr;       // only where columns != stride
    float* z_ = nullptr;
    unsigned char* codes_ = nullptr;
    float* values_ = nullptr;       // dense
    float* group_bounds_ = nullptr;
    std::int32_t* panels_ = nullptr;
    std::int32_t* rows_ = nullptr;
    float* bounds_ = nullptr;
};

}  // namespace adc

#endif
