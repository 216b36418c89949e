#include "threads.hpp"

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace adc {

namespace {

thread_local bool inside = false;  // a worker, or a caller within parallel_for

/// Threads that wait for one job at a time; each takes blocks of the range until none is left.
class Pool {
 public:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  [[nodiscard]] int workers() const { return static_cast<int>(threads_.size()); }

  void run(Index count, Index block, detail::RangeBody body, void* context) {
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      body_ = body;
      context_ = context;
      count_ = count;
      block_ = block;
      next_.store(0, std::memory_order_relaxed);
      busy_ = workers();
      error_ = nullptr;
      ++job_;
    }
    wake_.notify_all();
    take();
    std::unique_lock<std::mutex> hold(mutex_);
    done_.wait(hold, [this] { return busy_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void take() {
    inside = true;
    try {
      for (Index first = 0; (first = next_.fetch_add(block_)) < count_;) {
        body_(context_, first, std::min(first + block_, count_));
      }
    } catch (...) {
      next_.store(count_);
      const std::lock_guard<std::mutex> hold(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    inside = false;
  }

  void work() {
    std::uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, [&] { return stop_ || job_ != seen; });
        if (stop_) return;
        seen = job_;
      }
      take();
      const std::lock_guard<std::mutex> hold(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  detail::RangeBody body_ = nullptr;
  void* context_ = nullptr;
  Index count_ = 0;
  Index block_ = 1;
  std::atomic<Index> next_{0};
  int busy_ = 0;
  std::uint64_t job_ = 0;
  std::exception_ptr error_;
  bool stop_ = false;
};

std::mutex pool_mutex;
std::unique_ptr<Pool>& pool() {
  static std::unique_ptr<Pool> instance;
  return instance;
}
}  // namespace

namespace detail {

std::atomic<int> thread_count{1};

void parallel_run(Index count, Index block, RangeBody body, void* context) {
  if (inside) return body(context, 0, count);
  const std::lock_guard<std::mutex> hold(pool_mutex);
  if (!pool()) return body(context, 0, count);
  pool()->run(count, block, body, context);
}

}  // namespace detail

void set_threads(int count) {
  const std::lock_guard<std::mutex> hold(pool_mutex);
  detail::thread_count.store(std::max(count, 1));
  pool().reset();
  if (count > 1) pool() = std::make_unique<Pool>(count - 1);
}

}  // namespace adc
