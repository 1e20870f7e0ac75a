#include "gateway/delay_queue.h"

#include <chrono>

#include "base/env.h"

namespace th::gateway {

DelayQueue::DelayQueue() : thread_([this] { loop(); }) {}

DelayQueue::~DelayQueue() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void DelayQueue::after(int64_t delay_ns, std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    waiting_.emplace(Env::real().monotonic_ns() + delay_ns, std::move(callback));
  }
  changed_.notify_all();
}

void DelayQueue::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (waiting_.empty()) {
      if (stopping_) return;
      changed_.wait(lock);
      continue;
    }
    auto first = waiting_.begin();
    int64_t wait_ns = first->first - Env::real().monotonic_ns();
    if (wait_ns > 0 && !stopping_) {
      changed_.wait_for(lock, std::chrono::nanoseconds(wait_ns));
      continue;
    }
    std::function<void()> callback = std::move(first->second);
    waiting_.erase(first);
    lock.unlock();
    callback();
    callback = nullptr;
    lock.lock();
  }
}

}  // namespace th::gateway
