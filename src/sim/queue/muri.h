#pragma once
// Training jobs on a small cluster as Muri (SIGCOMM'22) simulates them, and the same jobs on real nodes. See
// docs/sim-queues.md for both protocols.

#include <span>

#include "sim/queue/outcome.h"
#include "sim/trace/muri.h"

namespace th::sim {

enum class MuriPolicy {
  kSrtf,         // shortest remaining time
  kSrsf,         // shortest remaining time × GPUs
  kTiresias,     // Tiresias_L: three queues by attained GPU time
  kThunderhead,  // reserve::JobOrder, or known_duration_key
};

enum class MuriProtocol {
  kMuri,  // every event costs each running job its start; the cluster is cleared and filled again for nothing
  kPlaced,  // a job stays where it is; a start or a move costs the job itself its start
};

struct MuriRun {
  MuriPolicy policy = MuriPolicy::kThunderhead;
  MuriProtocol protocol = MuriProtocol::kMuri;
  bool durations_known = false;  // thunderhead only: the others know what their names say
  int32_t nodes = 8;
  int32_t gpus_per_node = 8;
};

struct MuriOutcome {
  double avg_jct_s = 0, makespan_s = 0, p99_jct_s = 0;
  int64_t events = 0;  // moments at which the policy decided
  int64_t starts = 0;  // of jobs, again after each preemption or move
  int64_t preempted = 0;
  uint64_t log_hash = 0;
  std::vector<double> jct_s;  // by job, in the order given
  QueueSamples samples;
};

/// Runs `jobs`, sorted by submission, to the last end; each must fit in the empty cluster. Deterministic.
/// Cost: O(events · jobs in the system).
MuriOutcome run_muri(std::span<const MuriJob> jobs, const MuriRun& run);

}  // namespace th::sim
