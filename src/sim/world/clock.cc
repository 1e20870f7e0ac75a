#include "sim/world/clock.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace th::sim {

std::string Clock::token() { return fmt::format("{:016x}{:016x}", prng_.next(), prng_.next()); }

void Clock::at(int64_t time_ns, std::function<void()> event) {
  heap_.push_back({std::max(time_ns, now_ns_), next_sequence_++, std::move(event)});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

bool Clock::run_next() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  const Item item = std::move(heap_.back());
  heap_.pop_back();
  now_ns_ = item.time_ns;
  ++events_run_;
  item.event();
  return true;
}

bool Clock::run_due(int64_t until_ns) {
  if (!heap_.empty() && heap_.front().time_ns <= until_ns) return run_next();
  now_ns_ = std::max(now_ns_, until_ns);
  return false;
}

}  // namespace th::sim
