// parallel_for on OpenMP's threads (cmake -DADC_WITH_OPENMP=ON), in place of threads.cpp.
#include <omp.h>

#include <exception>

#include "threads.hpp"

namespace adc {

namespace detail {

std::atomic<int> thread_count{1};

void parallel_run(Index count, Index block, RangeBody body, void* context) {
  // Within somebody's parallel region the caller is one of many already.
  if (omp_in_parallel() != 0) return body(context, 0, count);
  const Index blocks = (count + block - 1) / block;
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic) num_threads(threads())
  for (Index i = 0; i < blocks; ++i) {
    try {  // an exception must not leave the region
      body(context, i * block, std::min((i + 1) * block, count));
    } catch (...) {
#pragma omp critical(adc_first_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace detail

void set_threads(int count) { detail::thread_count.store(std::max(count, 1)); }

}  // namespace adc
