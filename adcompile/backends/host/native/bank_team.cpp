#include "bank_team.hpp"

#include <algorithm>
#include <chrono>

#if defined(__linux__)
#include <sched.h>
#endif

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

// The processor this thread runs on; negative where that is not known.
int place() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

// Moves this thread to a processor that is not one of these, if it may use another. Afterwards it may
// run wherever it could before.
void leave(const std::atomic<int>* taken, int count) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;  // more processors than the set has
    cpu_set_t others = allowed;
    for (int i = 0; i < count; ++i) {
        const int processor = taken[i].load();
        if (processor >= 0 && processor < CPU_SETSIZE) CPU_CLR(static_cast<unsigned>(processor), &others);
    }
    if (CPU_COUNT(&others) == 0) return;
    if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
#else
    static_cast<void>(taken), static_cast<void>(count);
#endif
}

}  // namespace

Team::Team(int threads) : places_(static_cast<std::size_t>(threads)) {
    for (std::atomic<int>& p : places_) p.store(-1);
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

// A thread may wake on the processor of another member, where it waits until that one is done;
// schedulers leave it there for many calls. So it moves.
void Team::settle(int member) {
    const int here = place();
    const auto same = [here](const std::atomic<int>& other) { return other.load() == here; };
    if (here >= 0 && std::any_of(places_.begin(), places_.begin() + member, same)) leave(places_.data(), member);
    places_[static_cast<std::size_t>(member)].store(place());
}

void Team::serve(int member) {
    std::uint64_t seen = 0;
    for (;;) {
        look_until([&] { return round_.load() != seen; });
        {
            std::unique_lock<std::mutex> lock(mutex_);
            ++asleep_;
            wake_.wait(lock, [&] { return stop_ || (open_ && round_.load() != seen); });
            --asleep_;
            if (stop_) return;
            seen = round_.load();
            ++busy_;
        }
        settle(member);
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
    places_[0].store(place());
    bool sleepers;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        body_ = &body;
        count_ = count;
        block_ = block;
        next_.store(0);
        open_ = true;
        round_.fetch_add(1);
        sleepers = asleep_ > 0;
    }
    if (sleepers) {
        wake_.notify_all();
        std::this_thread::yield();  // who wakes on this processor can move
    }
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
