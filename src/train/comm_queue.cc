#include "train/comm_queue.h"

#include <fmt/format.h>

#include <utility>

#include "base/env.h"

namespace th::train {

CommQueue::CommQueue(Trace* trace) : trace_(trace), thread_([this] { run(); }) {}

CommQueue::~CommQueue() {
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

CommQueue::Ticket CommQueue::submit(const char* what, int unit, std::function<Status()> operation) {
  {
    std::scoped_lock lock(mutex_);
    waiting_.push_back({what, unit, std::move(operation)});
    ++submitted_;
  }
  changed_.notify_all();
  return submitted_;
}

Status CommQueue::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  if (ended_ < ticket && !error_) {
    const int64_t begin_ns = Env::real().monotonic_ns();
    changed_.wait(lock, [&] { return ended_ >= ticket || error_; });
    waited_ns_ += Env::real().monotonic_ns() - begin_ns;
  }
  if (error_) return fail(*error_);
  return {};
}

int64_t CommQueue::busy_ns() const {
  std::scoped_lock lock(mutex_);
  return busy_ns_;
}

void CommQueue::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || (!waiting_.empty() && !error_); });
    if (stop_) return;
    const auto operation = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    const int64_t begin_ns = Env::real().monotonic_ns();
    Status status = operation.run();
    const int64_t took_ns = Env::real().monotonic_ns() - begin_ns;
    if (trace_ != nullptr) {
      const std::string of = operation.unit < 0 ? "" : " of " + PassSpans::layer(operation.unit);
      trace_->span(Trace::Track::kCollectives, operation.what + of, begin_ns, begin_ns + took_ns);
    }
    lock.lock();
    busy_ns_ += took_ns;
    ++ended_;
    if (!status) error_ = std::move(status.error());
    changed_.notify_all();
  }
}

}  // namespace th::train
