#pragma once
// Jobs of a batch queue on many nodes of one kind, event by event, fast enough to run months of a large
// cluster in a second. See docs/sim-queues.md for what each policy does.

#include <span>

#include "sim/queue/outcome.h"
#include "sim/trace/queue_job.h"

namespace th::sim {

enum class QueuePolicyKind {
  kFifo,         // strictly in order of submission
  kBackfill,     // EASY: the first has a reservation, later ones may pass where they do not delay it
  kTiresias,     // preemptive, least attained GPU time first, in three queues
  kThunderhead,  // preemptive, reserve::JobOrder; no duration is known to it
};

struct QueueRun {
  QueuePolicyKind policy = QueuePolicyKind::kThunderhead;
  int32_t nodes = 8;
  int32_t gpus_per_node = 8;
  double restart_s = 10;  // that a job which was preempted needs before it goes on
};

struct QueueOutcome {
  double avg_jct_s = 0, p99_jct_s = 0;
  double makespan_s = 0;                  // from the first submission to the last end
  double utilisation = 0;                 // GPU time in use over GPUs × makespan
  double wait_p50_s = 0, wait_p99_s = 0;  // without GPUs, preempted time included
  int64_t submissions = 0, starts = 0, preemptions = 0, ends = 0;
  uint64_t log_hash = 0;
  std::vector<double> first_start_s, end_s;  // by job, in the order given
  QueueSamples samples;

  int64_t events() const { return submissions + starts + preemptions + ends; }
};

/// Runs `jobs`, sorted by submission, to the last end; each must fit in the empty cluster. Deterministic.
QueueOutcome run_queue(std::span<const QueueJob> jobs, const QueueRun& run);

}  // namespace th::sim
