#include "control/loop.h"

#include <chrono>
#include <utility>

namespace th::control {

bool Loop::post(std::function<void()> task) {
  std::lock_guard lock(mutex_);
  if (stopping_ || queue_.size() >= kMaxQueue) return false;
  queue_.push_back(std::move(task));
  wake_.notify_one();
  return true;
}

void Loop::post_result(std::function<void()> task) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  queue_.push_back(std::move(task));
  wake_.notify_one();
}

void Loop::run(const std::function<void()>& after_batch, int period_ms) {
  while (true) {
    std::deque<std::function<void()>> batch;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::milliseconds(period_ms),
                     [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      batch.swap(queue_);
    }
    for (auto& task : batch) task();
    after_batch();
  }
}

void Loop::stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  queue_.clear();
  wake_.notify_all();
}

Workers::Workers(Loop& loop, int threads) : loop_(loop) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this](const std::stop_token& stop) { serve(stop); });
  }
}

Workers::~Workers() {
  for (auto& thread : threads_) thread.request_stop();
}

void Workers::run(Work work) {
  std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  wake_.notify_one();
}

void Workers::serve(const std::stop_token& stop) {
  while (true) {
    Work work;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [&] { return !queue_.empty(); })) return;
      if (stop.stop_requested()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    loop_.post_result(work());
  }
}

}  // namespace th::control
