#pragma once
// The nodes of a whole fleet, in as few words as will do: one beat for all of them, and a report where
// something changed. (SimNodes speak the protocol message by message, for a few dozen.) Thread: one owner.

#include <map>
#include <string>
#include <vector>

#include "base/units.h"
#include "control/controller.h"
#include "sim/world/cloud.h"

namespace th::sim {

class FleetNodes {
 public:
  /// Between two beats: how long a rank takes to hear that it is to start.
  static constexpr int64_t kBeatNs = 5 * kSecond;

  /// Watches the cloud's machines. Call start() once the controller is there.
  FleetNodes(Clock& clock, uint64_t seed, SimCloud& cloud);
  void start(control::Controller& controller);

  size_t size() const { return nodes_.size(); }
  /// A rank of some node ends by a signal, as by a fault of its software. Returns: its job; empty: nothing
  /// ran there.
  std::string fail_some_rank(const std::string& reason);

 private:
  struct Rank {
    node::TaskReport report;
    int64_t up_ns = 0, ends_ns = 0;  // ends_ns 0: it serves until it is stopped
    bool well = true, tells = false;
    int64_t gpus = 0, ranks = 1, lines = 0, next_line_ns = 0, log_bytes = 0;
  };
  struct Node {
    std::string boot_id;
    int64_t serial = 0, generation = 0;
    bool is_new = true;
    std::map<std::string, Rank> ranks;  // by task id
  };

  void boot(const std::string& vm, int64_t serial);
  void beat();
  /// Whether there is something to report.
  bool obey(const std::string& vm, Node& node);
  bool move(Rank& rank) const;
  void tell_progress(const std::string& vm, Rank& rank, node::SyncRequest& request);
  void report(const std::string& vm, Node& node);
  int64_t between(int64_t low_ns, int64_t high_ns) {
    return low_ns + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(high_ns - low_ns + 1)));
  }

  Clock& clock_;
  Prng prng_;
  SimCloud& cloud_;
  control::Controller* controller_ = nullptr;
  std::map<std::string, Node> nodes_;  // by VM
};

/// What a job of the simulated fleet runs: so many virtual milliseconds, then exit code 0, or 1.
std::vector<std::string> simulated_training(int64_t milliseconds, bool well);

}  // namespace th::sim
