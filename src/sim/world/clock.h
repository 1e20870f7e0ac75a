#pragma once
// Virtual time: what happens next, and the Env that the control plane is given. Thread: one owner.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/env.h"

namespace th::sim {

/// Events run in the order of (time, sequence in which they were asked for); nothing happens between them.
class Clock final : public Env {
 public:
  Clock(uint64_t seed, int64_t start_ns) : prng_(seed), now_ns_(start_ns) {}

  int64_t unix_ns() const override { return now_ns_; }
  int64_t monotonic_ns() const override { return now_ns_; }
  /// Follows from the seed: not secret.
  std::string token() override;

  /// Cost: O(log n) of what waits.
  void at(int64_t time_ns, std::function<void()> event);
  void after(int64_t delay_ns, std::function<void()> event) { at(now_ns_ + delay_ns, std::move(event)); }
  /// Runs the next event. False when there is none.
  bool run_next();
  /// Runs the next event that is due by then. False when there is none: it is then that time.
  bool run_due(int64_t until_ns);
  int64_t events_run() const { return events_run_; }

 private:
  struct Item {
    int64_t time_ns = 0, sequence = 0;
    std::function<void()> event;
  };
  static bool later(const Item& a, const Item& b) {
    return a.time_ns != b.time_ns ? a.time_ns > b.time_ns : a.sequence > b.sequence;
  }

  Prng prng_;
  int64_t now_ns_, next_sequence_ = 0, events_run_ = 0;
  std::vector<Item> heap_;
};

}  // namespace th::sim
