// The C interface: banks, searchers and their threads. The search itself is in bank_worker.cpp,
// bank_scan.cpp, bank_small.cpp, bank_dense.cpp, bank_direct.cpp and bank_nearest.cpp.
#include "bank_search.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "bank_alike.hpp"
#include "bank_axes.hpp"
#include "bank_half.hpp"
#include "bank_file.hpp"
#include "bank_kernels.hpp"
#include "bank_paths.hpp"
#include "bank_status.hpp"
#include "bank_team.hpp"
#include "bank_view.hpp"
#include "bank_worker.hpp"

struct adc_bank {
    adc::search::AlignedBytes owned;
    std::string contract;
    adc::search::BankView view;
    adc::search::AxesCopy axes_copy;
    adc::search::HalfBank half;
    std::vector<std::int32_t> place;  // original number -> stored row
};

namespace {

using adc::search::say;

constexpr double kAlone = 5e6;  // products of a search that is over before another thread is awake

// Takes over bank (already holding its bytes) when everything is in order.
int finish_open(std::unique_ptr<adc_bank> bank, const unsigned char* data, std::size_t size,
                adc_bank** out, char* message, std::size_t message_size) {
    std::string why;
    adc::search::Container file;
    if (!adc::search::parse_container(data, size, file, why) || !adc::search::view_bank(file, bank->view, why))
        return say(ADC_BAD_FILE, message, message_size, "bank file refused: " + why);
    bank->contract = file.contract;
    bank->place.resize(static_cast<std::size_t>(bank->view.rows));
    for (std::int64_t i = 0; i < bank->view.rows; ++i)
        bank->place[static_cast<std::size_t>(bank->view.order[i])] = static_cast<std::int32_t>(i);
    if (adc::search::Worker::is_small(bank->view)) {
        if (!adc::search::copy_axes(bank->view, bank->axes_copy)) throw std::bad_alloc();
        bank->view.axes_copy = &bank->axes_copy;
    }
    const bool few = bank->view.axis_panels == 0 && bank->view.panels <= adc::search::kDirectPanels;
    if (few && adc::search::halve(bank->view, bank->half)) bank->view.half = &bank->half;
    *out = bank.release();
    return ADC_OK;
}

}  // namespace

struct adc_searcher {
    adc_searcher(const adc_bank* b, const adc::search::Kernels* k, int threads) : bank(b), kernels(k), team(threads) {}

    // False when a query is not finite.
    bool run(const adc::search::Batch& wanted);
    void search(int member, std::int64_t first, std::int64_t last);

    const adc_bank* bank;
    const adc::search::Kernels* kernels;
    std::vector<std::unique_ptr<adc::search::Worker>> workers;  // one for each thread
    adc::search::Team team;
    adc::search::Batch batch;
    std::atomic<bool> failed{false};
};

void adc_searcher::search(int member, std::int64_t first, std::int64_t last) {
    if (failed.load(std::memory_order_relaxed)) return;
    adc::search::Worker& worker = *workers[static_cast<std::size_t>(member)];
    if (!worker.run(batch, first, static_cast<int>(last - first))) failed.store(true);
}

bool adc_searcher::run(const adc::search::Batch& wanted) {
    for (auto& worker : workers) worker->counts = adc_search_counts();
    batch = wanted;
    if (workers[0]->likes_fours(batch.k)) batch.width = adc::search::map_width(batch.queries, batch.count, bank->view.columns);
    failed.store(false);
    // Blocks of equal size, a whole number of them for each thread; of whole tiles where queries are searched in fours.
    const std::int64_t parts = team.size();
    const std::int64_t most = workers[0]->block();
    const std::int64_t rounds = std::max<std::int64_t>(1, (batch.count + parts * most - 1) / (parts * most));
    std::int64_t block = std::max<std::int64_t>(1, (batch.count + parts * rounds - 1) / (parts * rounds));
    if (batch.width > 0) block = std::min(most, (block + adc::search::kNearTile - 1) / adc::search::kNearTile * adc::search::kNearTile);
    const double products = static_cast<double>(batch.count) * static_cast<double>(bank->view.rows * bank->view.columns);
    const auto body = [this](int member, std::int64_t first, std::int64_t last) { search(member, first, last); };
    if (products < kAlone)
        adc::search::Team::run_alone(batch.count, block, body);
    else
        team.run(batch.count, block, body);
    return !failed.load();
}

extern "C" {

int adc_bank_open(const char* path, adc_bank** bank, char* message, size_t message_size) try {
    if (bank == nullptr || path == nullptr) return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer");
    *bank = nullptr;
    auto opened = std::make_unique<adc_bank>();
    std::string why;
    if (!adc::search::read_file(path, opened->owned, why))
        return say(ADC_BAD_FILE, message, message_size, "bank file: " + why);
    const adc::search::AlignedBytes& bytes = opened->owned;
    return finish_open(std::move(opened), bytes.data(), bytes.size(), bank, message, message_size);
} catch (const std::bad_alloc&) {
    return say(ADC_NO_MEMORY, message, message_size, "not enough memory");
}

int adc_bank_open_memory(const void* data, size_t size, adc_bank** bank, char* message,
                         size_t message_size) try {
    if (bank == nullptr || data == nullptr) return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer");
    *bank = nullptr;
    auto opened = std::make_unique<adc_bank>();
    const auto* bytes = static_cast<const unsigned char*>(data);
    if (reinterpret_cast<std::uintptr_t>(data) % adc::search::kAlignment != 0) {
        if (!opened->owned.allocate(size)) throw std::bad_alloc();
        std::memcpy(opened->owned.data(), data, size);
        bytes = opened->owned.data();
    }
    return finish_open(std::move(opened), bytes, size, bank, message, message_size);
} catch (const std::bad_alloc&) {
    return say(ADC_NO_MEMORY, message, message_size, "not enough memory");
}

void adc_bank_close(adc_bank* bank) { delete bank; }

int64_t adc_bank_rows(const adc_bank* bank) { return bank->view.rows; }

int64_t adc_bank_columns(const adc_bank* bank) { return bank->view.columns; }

const char* adc_bank_contract(const adc_bank* bank) { return bank->contract.c_str(); }

int adc_bank_row(const adc_bank* bank, int64_t index, float* out) {
    if (bank == nullptr || out == nullptr || index < 0 || index >= bank->view.rows) return ADC_BAD_ARGUMENT;
    std::memcpy(out, bank->view.row(bank->place[static_cast<std::size_t>(index)]),
                static_cast<std::size_t>(bank->view.columns) * sizeof(float));
    return ADC_OK;
}

int adc_searcher_create(const adc_bank* bank, int threads, const char* path,
                        adc_searcher** searcher, char* message, size_t message_size) try {
    if (bank == nullptr || searcher == nullptr) return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer");
    *searcher = nullptr;
    if (threads < 1 || threads > 256)
        return say(ADC_BAD_ARGUMENT, message, message_size, "threads must be 1 to 256");
    const adc::search::Kernels* kernels = adc::search::choose_kernels(path);
    if (kernels == nullptr)
        return say(ADC_BAD_ARGUMENT, message, message_size,
                   "instruction set '" + std::string(path == nullptr ? "" : path) + "' is unknown or not available here");
    auto made = std::make_unique<adc_searcher>(bank, kernels, threads);
    for (int i = 0; i < threads; ++i) {
        made->workers.push_back(std::make_unique<adc::search::Worker>(bank->view, *kernels));
        if (!made->workers.back()->allocate()) throw std::bad_alloc();
    }
    *searcher = made.release();
    return ADC_OK;
} catch (const std::bad_alloc&) {
    return say(ADC_NO_MEMORY, message, message_size, "not enough memory");
} catch (const std::system_error&) {
    return say(ADC_NO_MEMORY, message, message_size, "cannot start threads");
}

void adc_searcher_close(adc_searcher* searcher) { delete searcher; }

const char* adc_searcher_path(const adc_searcher* searcher) { return searcher->kernels->name; }

int adc_searcher_run(adc_searcher* searcher, const float* queries, int64_t count, int k,
                     int64_t* indices, double* squared, char* message, size_t message_size) {
    if (searcher == nullptr || count < 0 || (count > 0 && (queries == nullptr || indices == nullptr || squared == nullptr)))
        return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer or negative count");
    if (k < 1 || k > ADC_MAX_NEIGHBOURS)
        return say(ADC_BAD_ARGUMENT, message, message_size, "k must be 1 to 64");
    if (k > searcher->bank->view.rows)
        return say(ADC_TOO_FEW_ROWS, message, message_size,
                   "k is " + std::to_string(k) + ", the bank has " + std::to_string(searcher->bank->view.rows) + " rows");
    adc::search::Batch batch;
    batch.queries = queries;
    batch.count = count;
    batch.k = k;
    batch.indices = indices;
    batch.squared = squared;
    if (!searcher->run(batch))
        return say(ADC_NOT_FINITE, message, message_size, "a query holds NaN or an infinity");
    return ADC_OK;
}

void adc_searcher_counts(const adc_searcher* searcher, adc_search_counts* counts) {
    *counts = adc_search_counts();
    for (const auto& worker : searcher->workers) {
        counts->pairs += worker->counts.pairs;
        counts->after_first += worker->counts.after_first;
        counts->exact += worker->counts.exact;
        counts->dense_groups += worker->counts.dense_groups;
        counts->dense_queries += worker->counts.dense_queries;
        counts->slow_queries += worker->counts.slow_queries;
        counts->alike_queries += worker->counts.alike_queries;
    }
}

}  // extern "C"
