// Greedy k-centre selection without approximation (farthest point first), for building memory
// banks. Used by adcompile/anomaly/coreset.py; not part of a host project.
#ifndef ADCOMPILE_CORESET_HPP
#define ADCOMPILE_CORESET_HPP

#include <cstddef>
#include <cstdint>

#include "bank_search.hpp"

extern "C" {

typedef struct adc_coreset_job {
    const float* rows;    // count x columns, row-major, finite
    int64_t count;
    int64_t columns;
    const float* centre;  // columns values: subtracted before bounds are computed
    float scale;          // a power of two that brings every centred row to length at most 1
    const float* axes;    // 16 x columns, orthonormal rows (some may be zero)
    int64_t picks;        // 1 … count
    int64_t first;        // index of the first pick
    int threads;          // for preparation
} adc_coreset_job;

// selected[i] is the i-th pick: the row farthest from the picks before it, by distances computed in
// double precision; among equally far rows the lowest index; never a row twice. radius[i] is the
// squared distance from the picks up to the i-th to the row farthest from them.
// path as in adc_searcher_create.
ADC_BANK_API int adc_coreset(const adc_coreset_job* job, const char* path, int64_t* selected,
                             double* radius, char* message, size_t message_size);

}

#endif
