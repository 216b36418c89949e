#include "bank_team.hpp"

#include <algorithm>
#include <chrono>

namespace adc::search {
namespace {

// How long a thread looks for what it waits for before it sleeps: calls follow each other within a
// frame, and to be woken takes longer than a short search.
constexpr std::chrono::milliseconds kPatience(1);

// Looks until `done` or out of patience, and lets others run meanwhile.
template <class Done>
void look_until(const Done& done) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!done() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

}  // namespace

Team::Team(int threads) {
    try {
        for (int member = 1; member < threads; ++member) others_.emplace_back(&Team::serve, this, member);
    } catch (...) {
        stop();
        throw;
    }
}

Team::~Team() { stop(); }

void Team::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
        round_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& t : others_) t.join();
    others_.clear();
}

void Team::serve(int member) {
    std::uint64_t seen = 0;
    for (;;) {
        look_until([&] { return round_.load() != seen; });
        {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return stop_ || (open_ && round_.load() != seen); });
            if (stop_) return;
            seen = round_.load();
            ++busy_;
        }
        work(member);
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--busy_ == 0) idle_.notify_one();
    }
}

void Team::work(int member) {
    for (;;) {
        const std::int64_t first = next_.fetch_add(block_);
        if (first >= count_) return;
        (*body_)(member, first, std::min(count_, first + block_));
    }
}

void Team::run_alone(std::int64_t count, std::int64_t block, const Body& body) {
    for (std::int64_t first = 0; first < count; first += block) body(0, first, std::min(count, first + block));
}

void Team::run(std::int64_t count, std::int64_t block, const Body& body) {
    if (others_.empty() || count <= block) return run_alone(count, block, body);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        body_ = &body;
        count_ = count;
        block_ = block;
        next_.store(0);
        open_ = true;
        round_.fetch_add(1);
    }
    wake_.notify_all();
    work(0);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        open_ = false;  // who has not begun by now will not
    }
    look_until([&] { return busy_.load() == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [&] { return busy_.load() == 0; });
}

}  // namespace adc::search
