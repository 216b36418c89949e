// Runs the bank search for tests.
//   search BANK QUERIES K THREADS PATH   writes count x k int64 indices, then doubles, to stdout
//   open BANK…                           says for each file whether it opens, and why not
//   misuse BANK                          calls the C interface wrongly in every way
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "bank_search.hpp"

namespace {

int fail(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    return 1;
}

std::vector<float> read_floats(const char* path) {
    std::vector<float> values;
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) return values;
    float buffer[1024];
    for (std::size_t n; (n = std::fread(buffer, sizeof(float), 1024, file)) > 0;)
        values.insert(values.end(), buffer, buffer + n);
    std::fclose(file);
    return values;
}

int search(char** argv) {
    char why[256] = "";
    adc_bank* bank = nullptr;
    adc_searcher* searcher = nullptr;
    if (adc_bank_open(argv[0], &bank, why, sizeof why) != ADC_OK) return fail(why);
    const int k = std::atoi(argv[2]);
    const std::vector<float> queries = read_floats(argv[1]);
    const auto count = static_cast<int64_t>(queries.size()) / adc_bank_columns(bank);
    std::vector<int64_t> indices(static_cast<std::size_t>(count * k));
    std::vector<double> squared(indices.size());
    int status = adc_searcher_create(bank, std::atoi(argv[3]), argv[4], &searcher, why, sizeof why);
    if (status == ADC_OK)
        status = adc_searcher_run(searcher, queries.data(), count, k, indices.data(), squared.data(), why, sizeof why);
    adc_searcher_close(searcher);
    adc_bank_close(bank);
    if (status != ADC_OK) {
        std::fprintf(stderr, "%d ", status);
        return fail(why);
    }
    std::fwrite(indices.data(), sizeof(int64_t), indices.size(), stdout);
    std::fwrite(squared.data(), sizeof(double), squared.size(), stdout);
    return 0;
}

int open_all(int count, char** paths) {
    for (int i = 0; i < count; ++i) {
        char why[256] = "";
        adc_bank* bank = nullptr;
        const int status = adc_bank_open(paths[i], &bank, why, sizeof why);
        std::printf("%d %s\n", status, why);
        if ((status == ADC_OK) != (bank != nullptr)) return fail("status and bank disagree");
        adc_bank_close(bank);
    }
    return 0;
}

int misuse(const char* path) {
    adc_bank* bank = nullptr;
    adc_searcher* s = nullptr;
    if (adc_bank_open(nullptr, &bank, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("null path");
    if (adc_bank_open("/nonexistent/bank", &bank, nullptr, 0) != ADC_BAD_FILE) return fail("no file");
    if (adc_bank_open("/", &bank, nullptr, 0) != ADC_BAD_FILE) return fail("folder");
    if (adc_bank_open(path, &bank, nullptr, 0) != ADC_OK) return fail("bank");
    if (adc_searcher_create(bank, 0, nullptr, &s, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("threads");
    if (adc_searcher_create(bank, 1, "z80", &s, nullptr, 0) != ADC_BAD_ARGUMENT || s != nullptr) return fail("path");
    if (adc_searcher_create(bank, 2, "auto", &s, nullptr, 0) != ADC_OK) return fail("searcher");
    const auto columns = static_cast<std::size_t>(adc_bank_columns(bank));
    std::vector<float> x(100 * columns, 0.5f);
    int64_t at[200];
    double d[200];
    const int more = static_cast<int>(adc_bank_rows(bank)) + 1;
    if (adc_searcher_run(s, x.data(), 1, 0, at, d, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("k 0");
    if (adc_searcher_run(s, x.data(), 1, 65, at, d, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("k 65");
    if (adc_searcher_run(s, x.data(), -1, 1, at, d, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("count");
    if (adc_searcher_run(s, nullptr, 1, 1, at, d, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("null");
    if (adc_searcher_run(s, x.data(), 1, more, at, d, nullptr, 0) != ADC_TOO_FEW_ROWS) return fail("rows");
    if (adc_searcher_run(s, nullptr, 0, 1, nullptr, nullptr, nullptr, 0) != ADC_OK) return fail("nothing to do");
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        x[99 * columns] = bad;
        if (adc_searcher_run(s, x.data(), 100, 1, at, d, nullptr, 0) != ADC_NOT_FINITE) return fail("not finite");
    }
    x[99 * columns] = 0.5f;
    if (adc_searcher_run(s, x.data(), 100, 1, at, d, nullptr, 0) != ADC_OK) return fail("after an error");
    std::vector<float> row(columns);
    if (adc_bank_row(bank, -1, row.data()) != ADC_BAD_ARGUMENT) return fail("row -1");
    if (adc_bank_row(bank, more - 1, row.data()) != ADC_BAD_ARGUMENT) return fail("row beyond");
    if (adc_bank_row(bank, 0, row.data()) != ADC_OK) return fail("row 0");
    if (adc_searcher_run(s, row.data(), 1, 1, at, d, nullptr, 0) != ADC_OK || d[0] != 0) return fail("own row");
    adc_searcher_close(s);
    adc_bank_close(bank);
    adc_searcher_close(nullptr);
    adc_bank_close(nullptr);
    std::puts("ok");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 7 && std::strcmp(argv[1], "search") == 0) return search(argv + 2);
    if (argc >= 3 && std::strcmp(argv[1], "open") == 0) return open_all(argc - 2, argv + 2);
    if (argc == 3 && std::strcmp(argv[1], "misuse") == 0) return misuse(argv[2]);
    return fail("usage: see the top of bank_search_main.cpp");
}
