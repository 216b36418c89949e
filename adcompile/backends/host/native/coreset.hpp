// Greedy k-centre selection without approximation (farthest point first), for building memory
// banks. Used by adcompile/anomaly/coreset.py; not part of a host project.
#ifndef ADCOMPILE_CORESET_HPP
#define ADCOMPILE_CORESET_HPP

#include <cstddef>
#include <cstdint>

#include "bank_search.hpp"

extern "C" {

typedef struct adc_coreset_job {
    const float* rows;  // count x columns, row-major
    int64_t count;
    int64_t columns;
    int64_t picks;      // 1 … count
    int64_t first;      // index of the first pick; -1: the row farthest from the mean of all
    int threads;
} adc_coreset_job;

// selected[i] is the i-th pick: the row farthest from the picks before it, by distances computed in
// double precision; among equally far rows the lowest index; never a row twice. radius[i] is the
// squared distance from the picks up to the i-th to the row farthest from them.
// path as in adc_searcher_create. ADC_NOT_FINITE when a row holds NaN or an infinity, or is so far from the mean
// that the difference leaves float32.
ADC_BANK_API int adc_coreset(const adc_coreset_job* job, const char* path, int64_t* selected,
                             double* radius, char* message, size_t message_size);

}

#endif
