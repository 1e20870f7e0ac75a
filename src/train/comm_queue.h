#pragma once
// Collectives beside the computation: a thread of its own runs them one after another, in the order in which
// they were handed in, which is the same on all ranks.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "base/result.h"
#include "train/trace.h"

namespace th::train {

/// Thread: submit and wait from one thread. After an error nothing more runs, and every wait returns it.
class CommQueue {
 public:
  using Ticket = int64_t;
  static constexpr Ticket kDone = 0;  // a ticket that has ended

  /// `trace`: where operations are told, or null.
  explicit CommQueue(Trace* trace = nullptr);
  /// Ends after the operation at hand.
  ~CommQueue();
  CommQueue(const CommQueue&) = delete;
  CommQueue& operator=(const CommQueue&) = delete;

  /// `what` and `unit` (-1: none) name it in a trace.
  Ticket submit(const char* what, int unit, std::function<Status()> operation);
  /// Errors: of this operation or one before it.
  Status wait(Ticket ticket);
  /// All that were submitted.
  Status wait_all() { return wait(submitted_); }

  /// Nanoseconds that operations took, and that somebody waited for them, so far.
  int64_t busy_ns() const;
  int64_t waited_ns() const { return waited_ns_; }

 private:
  struct Operation {
    const char* what;
    int unit;
    std::function<Status()> run;
  };
  void run();
  Trace* const trace_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> waiting_;
  Ticket submitted_ = 0, ended_ = 0;
  int64_t busy_ns_ = 0, waited_ns_ = 0;
  std::optional<Error> error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace th::train
