#pragma once
// What happened to each thing, in words, from the events. Thread: the loop only.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ledger/state.h"

namespace th::control {

struct Moment {
  int64_t seq = 0, time_ns = 0;
  std::string what, why;
};

/// An event in words. `state`: at the time of the event or later.
Moment describe(const ledger::Entry& entry, const ledger::State& state);

class Timeline {
 public:
  /// Called for each entry in order, also for those that were replayed.
  void add(const ledger::Entry& entry, const ledger::State& state);
  /// By id of slice, job or node, or name of a host, model or deployment. Oldest first; the last 1,000.
  const std::vector<Moment>& of(const std::string& subject) const;

 private:
  void put(const std::string& subject, const Moment& moment);

  std::map<std::string, std::vector<Moment>> moments_;
  std::map<std::string, std::string> job_of_slice_;          // of slices that were made for one job
  std::map<std::string, std::set<std::string>> jobs_on_vm_;  // that have not ended
};

}  // namespace th::control
