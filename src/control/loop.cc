#include "control/loop.h"

#include <chrono>
#include <exception>
#include <utility>

#include "base/log.h"

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

namespace {

/// What a library throws (no memory, mostly) costs one task and not the program.
void run_guarded(const std::function<void()>& task) {
  try {
    task();
  } catch (const std::exception& problem) {
    log_error("a task was given up: {}", problem.what());
  }
}

}  // namespace

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
    for (auto& task : batch) run_guarded(task);
    run_guarded(after_batch);
  }
}

void Loop::run_posted() {
  std::deque<std::function<void()>> batch;
  {
    std::lock_guard lock(mutex_);
    batch.swap(queue_);
  }
  for (auto& task : batch) run_guarded(task);
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
    // Without a result what waits for it would wait for ever, so what throws is tried again.
    std::function<void()> result;
    while (!result && !stop.stop_requested()) {
      run_guarded([&] { result = work(); });
      if (!result) std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    if (result) loop_.post_result(std::move(result));
  }
}

}  // namespace th::control
