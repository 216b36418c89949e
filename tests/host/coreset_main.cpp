// Runs the coreset selection for tests.
//   select ROWS COLUMNS COUNT FIRST THREADS PATH   writes int64 picks, then squared radii, to stdout
//   misuse                                         calls the C interface wrongly in every way
//   kernels PATH                                   compares `closest` and `pairs` with `values` and `check`
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "bank_paths.hpp"
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

std::vector<std::int8_t> random_codes(std::size_t count, std::mt19937& random) {
    std::vector<std::int8_t> codes(count);
    for (std::int8_t& code : codes) code = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
    return codes;
}

// `count` probes with random codes, which are kept in `memory` as the kernels like them.
std::vector<adc::search::Probe> random_probes(const adc::search::Kernels& kernels, int count, std::int64_t columns,
                                              std::vector<std::int16_t>& memory, std::mt19937& random) {
    const std::vector<std::int8_t> codes = random_codes(static_cast<std::size_t>(count * columns), random);
    memory.assign(codes.begin(), codes.end());
    if (kernels.code_bytes == 1) std::memcpy(memory.data(), codes.data(), codes.size());
    std::vector<adc::search::Probe> probes;
    for (int i = 0; i < count; ++i) {
        const void* own = reinterpret_cast<const char*>(memory.data()) + i * columns * kernels.code_bytes;
        probes.push_back({own, -0.01f * static_cast<float>(i + 1), 0, 0, std::numeric_limits<float>::infinity(), kernels.bias(own, columns)});
    }
    return probes;
}

// For every number of probes and some of panels: nothing is less than what was found, but for what the tag takes.
bool closest_is_least(const adc::search::Kernels& kernels, std::mt19937& random) {
    using namespace adc::search;
    constexpr std::int64_t columns = 48, most = 260;
    const std::vector<std::int8_t> codes = random_codes(most * kLanes * columns, random);
    std::vector<float> terms(most * 3 * kLanes);
    for (float& term : terms) term = 0.02f + 1e-4f * static_cast<float>(random() % 100);
    Shadow shadow;
    shadow.columns = columns;
    shadow.codes = codes.data();
    shadow.terms = terms.data();
    std::vector<std::int16_t> memory;
    for (int count = 1; count <= 16; ++count)
        for (const int panels : {1, 2, 3, 40, kTagged})
            for (const std::int64_t first : {std::int64_t{0}, std::int64_t{77}, most - panels}) {
                const std::vector<Probe> probes = random_probes(kernels, count, columns, memory, random);
                std::vector<float> values(static_cast<std::size_t>(count * panels * kLanes)), least(static_cast<std::size_t>(count * kLanes));
                std::vector<std::int32_t> rows(static_cast<std::size_t>(count));
                kernels.values(shadow, memory.data(), probes.data(), count, first, panels, values.data());
                kernels.closest(shadow, memory.data(), probes.data(), count, first, panels, least.data(), rows.data());
                for (int i = 0; i < count; ++i) {
                    const float* own = &values[static_cast<std::size_t>(i * panels * kLanes)];
                    const std::int64_t place = rows[static_cast<std::size_t>(i)] - first * kLanes;
                    if (place < 0 || place >= panels * kLanes) return false;
                    const float smallest = *std::min_element(own, own + panels * kLanes);
                    if (own[place] > smallest + std::fabs(smallest) / 16384) return false;
                }
            }
    return true;
}

// The same numbers as one by one, but for fused or separate roundings.
bool pairs_as_checked(const adc::search::Kernels& kernels, std::mt19937& random) {
    using namespace adc::search;
    constexpr std::int64_t columns = 192;
    constexpr int points = 30;
    const std::vector<std::int8_t> codes = random_codes(points * columns, random);
    alignas(16) float terms[points * kRowTerms];
    for (float& term : terms) term = 0.02f + 1e-4f * static_cast<float>(random() % 100);
    BankView view;
    view.rows = points;
    view.code_stride = columns;
    view.row_codes = codes.data();
    view.row_terms = terms;
    std::vector<std::int16_t> memory;
    for (int count = 1; count <= 16; ++count) {
        const std::vector<Probe> probes = random_probes(kernels, count, columns, memory, random);
        std::vector<std::int32_t> rows(static_cast<std::size_t>(count));
        for (std::int32_t& row : rows) row = static_cast<std::int32_t>(random() % points);
        std::vector<float> values(rows.size());
        kernels.pairs(view, probes.data(), rows.data(), count, values.data());
        for (std::size_t i = 0; i < rows.size(); ++i) {
            std::int32_t list[4] = {rows[i]};
            float one[4];
            if (kernels.check(view, probes[i], list, 1, one) != 1) return false;
            if (std::fabs(one[0] - values[i]) > 1e-6f * (1 + std::fabs(one[0]))) return false;
        }
    }
    return true;
}

int compare_kernels(const char* path) {
    const adc::search::Kernels* kernels = adc::search::choose_kernels(path);
    if (kernels == nullptr) return fail("instruction set is not available here");
    std::mt19937 random(1);
    if (!closest_is_least(*kernels, random)) return fail("closest");
    if (!pairs_as_checked(*kernels, random)) return fail("pairs");
    std::puts("ok");
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
    if (argc == 3 && std::strcmp(argv[1], "kernels") == 0) return compare_kernels(argv[2]);
    return fail("usage: see the top of coreset_main.cpp");
}
