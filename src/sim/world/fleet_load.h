#pragma once
// What goes on in a simulated fleet without its user: tenants that train, hosts that break at published rates
// and are repaired, hosts that the operator drains. Thread: one owner.

#include <cstdint>
#include <string>

#include "control/controller.h"
#include "sim/world/fleet_nodes.h"

namespace th::sim {

/// policy.yaml of the simulated fleet: its tenants, as a tree, one of them with a quota that its jobs wait
/// for; a hold lasts so many virtual seconds.
std::string fleet_load_policy(int64_t hold_s);

class FleetLoad {
 public:
  /// `load_percent`: of the GPUs, that tenants' work takes.
  FleetLoad(Clock& clock, uint64_t seed, SimCloud& cloud, FleetNodes& nodes, int64_t load_percent)
      : clock_(clock), prng_(seed), cloud_(cloud), nodes_(nodes), load_percent_(load_percent) {}
  void start(control::Controller& controller);
  int64_t faults() const { return faults_; }

 private:
  void next_work();
  void submit();
  void lease(const std::string& account, int64_t gpus, int64_t duration_ns);
  void next_fault();
  void one_fault();
  void break_host(fleet::HostIndex host);
  void next_drain();
  int64_t gpus_asked_for() const;
  int64_t below(int64_t bound) { return static_cast<int64_t>(prng_.below(static_cast<uint64_t>(bound))); }

  Clock& clock_;
  Prng prng_;
  SimCloud& cloud_;
  FleetNodes& nodes_;
  int64_t load_percent_;
  control::Controller* controller_ = nullptr;
  int64_t next_name_ = 1, faults_ = 0, fleet_gpus_ = 0;
};

}  // namespace th::sim
