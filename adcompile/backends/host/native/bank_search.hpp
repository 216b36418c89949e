// Exact k-nearest-neighbour search over a fixed bank of float32 rows (Euclidean metric).
//
//   char why[256];
//   adc_bank* bank = nullptr;
//   adc_searcher* searcher = nullptr;
//   if (adc_bank_open("bank/patches.adbank", &bank, why, sizeof why) != ADC_OK) fail(why);
//   if (adc_searcher_create(bank, /*threads=*/2, /*path=*/nullptr, &searcher, why, sizeof why)) fail(why);
//   // queries: count x adc_bank_columns(bank), row-major, contiguous, finite
//   if (adc_searcher_run(searcher, queries, count, k, indices, squared, why, sizeof why)) fail(why);
//
// indices and squared hold count x k values, row-major. Each row of them is ascending by squared
// distance, equal distances by index. `indices` number the rows as they were given when the bank
// was made; `squared` are *squared* Euclidean distances in double precision, so a caller that needs
// the Euclidean distance takes std::sqrt before it narrows to float.
//
// What is guaranteed:
// * The neighbours are those of a brute-force search that evaluates every pair in double precision.
//   All shortcuts rest on lower bounds that stay lower bounds under float rounding
//   (bank_search.cpp, "Why no neighbour is lost").
// * Results are bit-identical on every instruction set, for every number of threads, and in the
//   NumPy implementation of the same search (adcompile/anomaly/search.py).
// * No queries x rows matrix ever exists: scratch memory, for each thread, is about 2 MiB, 0.5 KiB
//   per column (2 KiB where columns are no multiple of 32) and 6 bytes per bank row, allocated by
//   adc_searcher_create. adc_searcher_run allocates nothing.
// * A bank file is untrusted: everything is checked when it is opened, memory use is bounded by
//   the file's size, and a refusal names the field at fault.
//
// Threads: a bank is read-only and may be shared; a searcher serves one call at a time.
// Source files: all of bank_*.cpp, C++17 and threads, no dependency. Compile with -O2 or -O3 and
// without -ffast-math (refused by an #error); no -m flags are needed: instruction sets are chosen
// at run time.
#ifndef ADCOMPILE_BANK_SEARCH_HPP
#define ADCOMPILE_BANK_SEARCH_HPP

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define ADC_BANK_API __declspec(dllexport)
#else
#define ADC_BANK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct adc_bank adc_bank;
typedef struct adc_searcher adc_searcher;

enum adc_status {
    ADC_OK = 0,
    ADC_BAD_ARGUMENT = 1,  // null pointer, k outside 1..64, negative count, unknown path name
    ADC_TOO_FEW_ROWS = 2,  // k is larger than the bank
    ADC_NOT_FINITE = 3,    // a query holds NaN or an infinity
    ADC_BAD_FILE = 4,      // the bank file cannot be read or is refused
    ADC_NO_MEMORY = 5
};

enum { ADC_MAX_NEIGHBOURS = 64 };

// Opens a bank file. On failure *bank is null and `message` (if not null) holds one sentence.
ADC_BANK_API int adc_bank_open(const char* path, adc_bank** bank, char* message, size_t message_size);

// The same from memory. The bytes are borrowed, and must outlive the bank, when they are 64-byte
// aligned; otherwise they are copied.
ADC_BANK_API int adc_bank_open_memory(const void* data, size_t size, adc_bank** bank, char* message,
                         size_t message_size);

ADC_BANK_API void adc_bank_close(adc_bank* bank);  // after its searchers; null is allowed

ADC_BANK_API int64_t adc_bank_rows(const adc_bank* bank);
ADC_BANK_API int64_t adc_bank_columns(const adc_bank* bank);

// The contract this bank was made under (as stored in the file, may be empty), NUL-terminated.
ADC_BANK_API const char* adc_bank_contract(const adc_bank* bank);

// Copies row `index` (numbered as given when the bank was made) to out[columns].
ADC_BANK_API int adc_bank_row(const adc_bank* bank, int64_t index, float* out);

// A searcher owns scratch memory and threads - 1 parked worker threads.
// path: null or "auto" picks the best instruction set of this machine; "portable", "avx2",
// "avx512", "avx512vnni", "neon", "neondot" insist on one, and fail where it is not available.
ADC_BANK_API int adc_searcher_create(const adc_bank* bank, int threads, const char* path,
                        adc_searcher** searcher, char* message, size_t message_size);

ADC_BANK_API void adc_searcher_close(adc_searcher* searcher);  // null is allowed

// The name of the instruction set in use.
ADC_BANK_API const char* adc_searcher_path(const adc_searcher* searcher);

// Finds the k nearest rows of each query; 1 <= k <= 64 and k <= rows. See the top of this file.
// On failure nothing in indices/squared may be used.
ADC_BANK_API int adc_searcher_run(adc_searcher* searcher, const float* queries, int64_t count, int k,
                     int64_t* indices, double* squared, char* message, size_t message_size);

// What the last run did, for benchmarks.
typedef struct adc_search_counts {
    uint64_t pairs;          // queries x rows
    uint64_t after_first;    // rows that the boxes and the axes left
    uint64_t exact;          // rows evaluated in float32 over all columns
    uint64_t dense_groups;   // (query, group of 256 rows) of which too many rows were left
    uint64_t dense_queries;  // queries that took the dense scan
    uint64_t slow_queries;   // queries too long for float32 bounds: every row evaluated
    uint64_t alike_queries;  // queries that were searched in fours with the same last columns
} adc_search_counts;

ADC_BANK_API void adc_searcher_counts(const adc_searcher* searcher, adc_search_counts* counts);

#ifdef __cplusplus
}
#endif

#endif
