#pragma once
// What nodes have to show before they are handed over, beside what they find themselves (node/validate.h):
// that they hold the slice's stack, and that together they are fast. Thread: the loop only.

#include <map>
#include <optional>
#include <set>
#include <string>

#include "control/bisection.h"
#include "control/check_gangs.h"

namespace th::control {

class NodeChecks {
 public:
  explicit NodeChecks(Core& core) : gangs(core), core_(core) {}

  /// The node dialled in and found itself well: it is validated once it holds its slice's stack.
  void dialled_in(const ledger::Vm& vm, const std::string& boot_id, const std::string& address);

  struct Fabric {
    enum class State { kUnderWay, kPassed, kSlow } state = State::kUnderWay;
    std::vector<std::string> slow_vms;  // kSlow: by their fault; empty: it is nobody's
    std::string reason;                 // kSlow
  };
  /// Whether the slice's nodes, which are all ready, add numbers up as fast as the policy wants
  /// (min_all_reduce). To be asked on each step; begins when it is asked first, and anew for other nodes.
  Fabric fabric(const ledger::Slice& slice);

  /// What is wrong with a node.
  std::function<void(const std::string& vm, const std::string& reason)> on_bad;

  CheckGangs gangs;

 private:
  struct Measuring {
    int64_t serial = 0;
    std::vector<std::string> vms;
    Bisection bisection;
    std::vector<std::optional<int64_t>> bytes_per_s;  // of its round; none: under way
    std::string text;                                 // of the first measurement
  };
  void measure(const std::string& slice, Measuring& measuring);
  void measured(const std::string& slice, int64_t serial, size_t part, const CheckOutcome& outcome);

  Core& core_;
  std::set<std::string> looking_;               // VM and boot whose stack is being looked at
  std::map<std::string, Measuring> measuring_;  // by slice
  int64_t next_serial_ = 0;
};

}  // namespace th::control
