#pragma once
// One long training job under Llama 3's published fault mix: how much of the time it trains, by what an
// interruption costs. Hosts, blocks and spares are placed and replaced by `reserve`.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "reserve/snapshot.h"

namespace th::sim {

/// What an interruption costs. Defaults and their sources: docs/sim-world.md.
struct InterruptionCosts {
  double detect_s = 30;    // from the fault until it is known which hosts are lost
  double restart_s = 120;  // from then until the job trains again on whole hardware
  double stall_s = 2;      // the job stands still for one checkpoint
};

struct Llama3Options {
  int64_t seed = 1;
  int64_t gpus = 16'384, days = 54;
  int64_t spares_per_block = 1;      // hosts, of each block of 32
  double checkpoint_interval_s = 0;  // between saves; 0: Young's optimum
  InterruptionCosts costs;
  double step_s = 5.9;             // of one optimizer step
  bool survivors_save = true;      // after a fault the ranks that live save what they hold
  double repair_hours = 24;        // of a host
  double bad_repair_share = 0.05;  // repairs after which the host fails again soon
};

struct Llama3Result {
  int64_t interruptions = 0, manual_steps = 0, checkpoints = 0, replaced_hosts = 0, lemons = 0;
  double expected_interruptions = 0, ettr = 0, checkpoint_interval_s = 0, lost_gpu_hours = 0;
  // Seconds of the job that were not training that counted.
  double detect_s = 0, restart_s = 0, stall_s = 0, redone_s = 0, waited_for_hosts_s = 0;
  std::vector<std::pair<std::string, int64_t>> by_kind;
  uint64_t hash = 0;  // of each interruption: time, kind, host, who took its place
  std::vector<double> interruption_times_s;
};

/// Where the job lies: the fleet with the gang's hosts and the spares. Runs with the same gpus, days and
/// spares can share it.
struct Llama3Place {
  reserve::Snapshot snapshot;
  std::vector<reserve::HostIndex> hosts;  // of the gang
};
/// Errors: kInvalidArgument (naming the option), kUnsatisfiable.
Result<Llama3Place> place_llama3(const Llama3Options& options);
Result<Llama3Result> run_llama3(const Llama3Options& options, const Llama3Place& place);
Result<Llama3Result> run_llama3(const Llama3Options& options);

/// Interval between checkpoints that loses least, for faults `mtbf_s` apart that lose the work since the
/// last one: sqrt(2 · stall · mtbf). Young, "A First Order Approximation to the Optimum Checkpoint Interval"
/// (CACM 1974); Daly (2006) has the terms of higher order, below a percent here.
double young_interval_s(double stall_s, double mtbf_s);

}  // namespace th::sim
