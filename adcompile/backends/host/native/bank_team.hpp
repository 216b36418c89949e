// Threads that share many short loops.
#ifndef ADCOMPILE_BANK_TEAM_HPP
#define ADCOMPILE_BANK_TEAM_HPP

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace adc::search {

// The caller and `threads` - 1 others. A thread that is still asleep when a loop ends missed
// nothing: only those that have begun are waited for.
class Team {
public:
    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return static_cast<int>(others_.size()) + 1; }

    // Calls body(member, first, last) on pieces of at most `block` that make up [0, count); member
    // is 0 … size() - 1. The body must not throw.
    using Body = std::function<void(int, std::int64_t, std::int64_t)>;
    void run(std::int64_t count, std::int64_t block, const Body& body);

    // The same on the calling thread, as member 0.
    static void run_alone(std::int64_t count, std::int64_t block, const Body& body);

private:
    void serve(int member);
    void work(int member);
    void stop();
    void settle(int member);

    std::vector<std::atomic<int>> places_;  // the processor of each member, as far as known
    std::vector<std::thread> others_;
    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    std::atomic<std::uint64_t> round_{0};
    bool open_ = false, stop_ = false;
    int asleep_ = 0;
    std::atomic<int> busy_{0};
    const Body* body_ = nullptr;
    std::int64_t count_ = 0, block_ = 1;
    std::atomic<std::int64_t> next_{0};
};

}  // namespace adc::search

#endif
