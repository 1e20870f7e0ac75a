#pragma once
// Waiting for peers that may die: how the ranks of a segment tell each other how far they are.

#include <stop_token>
#include <string>
#include <thread>

#include "base/result.h"
#include "collective/shm/segment.h"

namespace th::collective {

/// Our heart beats, in a thread of its own, from here until the destructor, in which we leave the group.
/// Thread: the rest from one. `segment` must outlive it.
class Watch {
 public:
  Watch(const Segment& segment, int rank, ShmOptions options);
  ~Watch();
  Watch(Watch&&) = delete;

  /// Our counter is at `value` now: whoever waits for it goes on.
  void raise(Counter& counter, uint64_t value);
  /// Until the counter of `peer` is at `value` or beyond. Errors: kUnavailable, when it left, or any peer
  /// died or hangs; kInternal, when ranks disagree. All ranks name the same peer.
  Status wait(int peer, Counter& counter, uint64_t value);
  /// What broke the group, if it is known to be.
  Status check() const;
  /// Tells the others that the ranks disagree, and returns that error.
  Status disagree();

 private:
  void beat(std::stop_token stop);
  Status sleep(int peer, Counter& counter, uint64_t value);
  Status look_around(int waited_for, const Counter& counter, uint64_t value);
  std::string problem_of(int peer) const;

  const Segment& segment_;
  int rank_;
  int world_;
  ShmOptions options_;
  std::jthread heart_;  // last: ends first
};

}  // namespace th::collective
