#pragma once
// Random buyers, faults, crashes and restarts of the control plane, and checkers that know nothing of its
// code. A run is a row of rounds: each starts with an empty ledger and a draw of how badly everything
// behaves, and ends with all faults over and everything given back. One seed gives one run, to the bit.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::sim {

struct ChaosOptions {
  int64_t seed = 1;
  int64_t steps = 1'000'000;  // events of the world: commands, answers, reports, faults, timers
  int64_t steps_per_round = 20'000;
  std::string plant;            // double-lease | half-gang | lost-ack | leak-vm | quota | lost-reservation |
                                // double-meter | orphan-replica; empty: no bug
  int64_t max_violations = 20;  // more end the run
  std::string trace_file;       // every durable event and every answer as text; empty: none
};

struct Violation {
  std::string rule, what;
  int64_t round = 0, step = 0, time_ns = 0;  // step: of the whole run; time: since the round began
  int64_t again_steps = 0;                   // a run of so many steps, with this seed, finds it again
};

/// How things stood; one every half virtual minute. time_s counts on from round to round.
struct ChaosSample {
  double time_s = 0;
  int64_t gpus_paid = 0, slices = 0, vms = 0, faults = 0;
};

struct ChaosResult {
  int64_t steps = 0, rounds = 0, faults = 0, crashes = 0, restarts = 0, commands = 0, acknowledged = 0;
  int64_t events = 0, leases = 0, jobs = 0, vms = 0, preemptions = 0, resizes = 0;
  int64_t reservations = 0, reserved = 0;  // reserved: leases inside of them
  int64_t deployments = 0, deployed = 0;   // deployed: times that one became ready
  int64_t usage_records = 0, tokens = 0, gateway_crashes = 0;
  int64_t refused = 0;  // slices that a quota or a budget did not leave room for
  int64_t gpu_ns_paid = 0, microusd_paid = 0;
  int64_t virtual_ns = 0;
  uint64_t hash = 0;  // of every durable event, every answer and every violation
  std::vector<Violation> violations;
  int64_t fleet_gpus = 0;
  std::vector<ChaosSample> samples;
};

/// Errors: kInvalidArgument (plant, counts), those of the trace file and of a temporary folder.
Result<ChaosResult> run_chaos(const ChaosOptions& options);

}  // namespace th::sim
