#pragma once
// One thread that owns the state: it runs what others post, in order, and after each batch a step of its own.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace th::control {

/// Thread: post() and stop() are safe from any thread; everything posted runs on the thread of run().
class Loop {
 public:
  static constexpr size_t kMaxQueue = 10'000;

  /// False when kMaxQueue tasks wait already or the loop has stopped: the task is dropped.
  bool post(std::function<void()> task);
  /// As post(), but never refused for the length of the queue: for results of work that the loop asked for.
  void post_result(std::function<void()> task);
  /// Runs tasks until stop(); after each batch, and at the latest every `period_ms`, `after_batch`.
  void run(const std::function<void()>& after_batch, int period_ms);
  /// Runs what waits now and returns: for a caller that owns the time.
  void run_posted();
  void stop();

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
};

/// Blocking work off the loop. Work runs on a worker; what it returns runs on the loop.
using Work = std::function<std::function<void()>()>;
using Offload = std::function<void(Work)>;

/// Threads for blocking work. Destruction waits for the work under way and drops the rest. Thread: safe from
/// any thread.
class Workers {
 public:
  Workers(Loop& loop, int threads);
  ~Workers();
  void run(Work work);

 private:
  void serve(const std::stop_token& stop);

  Loop& loop_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<Work> queue_;
  std::vector<std::jthread> threads_;
};

}  // namespace th::control
