#pragma once
// Gangs that are no jobs: what nodes run before they are handed over. Thread: the loop only.

#include <functional>
#include <map>
#include <string>

#include "control/core.h"

namespace th::control {

struct CheckOutcome {
  bool ok = false;     // every rank exited with 0
  bool lost = false;   // a node went away meanwhile: nothing is known
  std::string reason;  // unless ok, for people
  std::string line;    // the last that rank 0 wrote to TH_METRICS, a JSON object; empty: none
};

class CheckGangs {
 public:
  explicit CheckGangs(Core& core) : core_(core) {}

  /// Starts `argv` on every place, one rank each. `done` is called once, in a later step; not after a restart
  /// of the controller, which ends what ran.
  void run(std::vector<std::string> argv, std::map<std::string, std::string> env,
           std::vector<launch::RankPlace> places, int64_t timeout_ns,
           std::function<void(const CheckOutcome&)> done);
  /// Whether the event was of such a gang.
  bool take(const launch::Event& event);
  /// Ends those whose time is over.
  void step();

 private:
  struct Run {
    int64_t deadline_ns = 0, timeout_ns = 0;  // monotonic
    std::string line;
    std::function<void(const CheckOutcome&)> done;  // null: it was told
  };
  void finish(const std::string& job, CheckOutcome outcome);

  Core& core_;
  std::string prefix_;  // no other controller's
  int64_t next_ = 1;
  std::map<std::string, Run> runs_;  // by the gang's name
};

/// The place of one rank on the VM.
launch::RankPlace place_on(const ledger::Vm& vm);

}  // namespace th::control
