#pragma once
// Runs things a little later, on one thread of its own.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace th::gateway {

/// Thread-safe. Callbacks must not block.
class DelayQueue {
 public:
  DelayQueue();
  /// Runs at once what still waits, then joins.
  ~DelayQueue();
  void after(int64_t delay_ns, std::function<void()> callback);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<int64_t, std::function<void()>> waiting_;  // by monotonic time
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace th::gateway
