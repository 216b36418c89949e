// Runs the coreset selection for tests.
//   select ROWS COLUMNS COUNT FIRST THREADS PATH   writes int64 picks, then squared radii, to stdout
//   misuse                                         calls the C interface wrongly in every way
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "coreset.hpp"

namespace {

int fail(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    return 1;
}

int select(char** argv) {
    std::FILE* file = std::fopen(argv[0], "rb");
    if (file == nullptr) return fail("no file");
    std::vector<float> rows;
    float buffer[1024];
    for (std::size_t n; (n = std::fread(buffer, sizeof(float), 1024, file)) > 0;) rows.insert(rows.end(), buffer, buffer + n);
    std::fclose(file);
    const int64_t columns = std::atoll(argv[1]), picks = std::atoll(argv[2]);
    const adc_coreset_job job = {rows.data(), static_cast<int64_t>(rows.size()) / columns, columns, picks, std::atoll(argv[3]), std::atoi(argv[4])};
    std::vector<int64_t> selected(static_cast<std::size_t>(picks));
    std::vector<double> radius(selected.size());
    char why[256] = "";
    if (adc_coreset(&job, argv[5], selected.data(), radius.data(), why, sizeof why) != ADC_OK) return fail(why);
    std::fwrite(selected.data(), sizeof(int64_t), selected.size(), stdout);
    std::fwrite(radius.data(), sizeof(double), radius.size(), stdout);
    return 0;
}

int misuse() {
    std::vector<float> rows(40 * 6, 0.5f);
    const adc_coreset_job good = {rows.data(), 40, 6, 5, 0, 2};
    int64_t selected[40];
    double radius[40];
    const auto status = [&](const adc_coreset_job& job, const char* path = "auto") { return adc_coreset(&job, path, selected, radius, nullptr, 0); };
    if (adc_coreset(nullptr, nullptr, selected, radius, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("null job");
    if (adc_coreset(&good, nullptr, nullptr, radius, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("null picks");
    if (adc_coreset(&good, nullptr, selected, nullptr, nullptr, 0) != ADC_BAD_ARGUMENT) return fail("null radii");
    if (status(good, "z80") != ADC_BAD_ARGUMENT) return fail("path");
    adc_coreset_job job = good;
    for (const int64_t picks : {0, -1, 41}) {
        job.picks = picks;
        if (status(job) != ADC_BAD_ARGUMENT) return fail("picks");
    }
    job = good;
    for (const int64_t first : {-2, 40}) {
        job.first = first;
        if (status(job) != ADC_BAD_ARGUMENT) return fail("first");
    }
    job = good;
    for (const int threads : {0, 257}) {
        job.threads = threads;
        if (status(job) != ADC_BAD_ARGUMENT) return fail("threads");
    }
    job = good;
    job.columns = 0;
    if (status(job) != ADC_BAD_ARGUMENT) return fail("columns");
    job = good;
    job.rows = nullptr;
    if (status(job) != ADC_BAD_ARGUMENT) return fail("null rows");
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        for (const std::size_t place : {0, 239}) {
            rows[place] = bad;
            if (status(good) != ADC_NOT_FINITE) return fail("not finite");
            rows[place] = 0.5f;
        }
    }
    job = good;
    job.picks = 40;
    job.first = -1;
    if (status(job) != ADC_OK) return fail("all rows, all equal");
    for (int i = 0; i < 40; ++i)
        if (selected[i] != i || radius[i] != 0) return fail("order of equal rows");
    std::puts("ok");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 8 && std::strcmp(argv[1], "select") == 0) return select(argv + 2);
    if (argc == 2 && std::strcmp(argv[1], "misuse") == 0) return misuse();
    return fail("usage: see the top of coreset_main.cpp");
}
