#pragma once
// What has happened to jobs (event_types.h).

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/event_fields.h"

namespace th::ledger {

/// Where a rank runs. `gpus`: indices on its node.
struct RankPlace {
  std::string vm;
  std::vector<int64_t> gpus;
  TH_PART() { v("vm", e.vm), v("gpus", e.gpus); }
};

/// `spec`: the job's spec as JSON text (docs/protocols.md). `slice`: id, or empty: it gets one of its own.
struct JobSubmitted {
  std::string job, name, kind, slice, spec;  // kind: batch | serve
  int64_t gpus = 0;
  TH_EVENT("job_submitted") {
    v("job", e.job), v("name", e.name), v("kind", e.kind), v("slice", e.slice), v("spec", e.spec),
        v("gpus", e.gpus);
  }
};
struct AttemptStarted {
  std::string job, slice;
  int64_t attempt = 0, master_port = 0;
  std::vector<RankPlace> ranks;
  TH_EVENT("attempt_started") {
    v("job", e.job), v("slice", e.slice), v("attempt", e.attempt), v("master_port", e.master_port),
        v("ranks", e.ranks);
  }
};
/// Every rank of the attempt runs (kind serve: is ready).
struct AttemptRunning {
  std::string job;
  int64_t attempt = 0;
  TH_EVENT("attempt_running") { v("job", e.job), v("attempt", e.attempt); }
};
/// exit_code is -1 where a signal ended it or nobody saw it end (reason says so).
struct RankExited {
  std::string job, vm, reason;
  int64_t attempt = 0, rank = 0, exit_code = 0, signal = 0;
  TH_EVENT("rank_exited") {
    v("job", e.job), v("vm", e.vm), v("reason", e.reason), v("attempt", e.attempt), v("rank", e.rank);
    v("exit_code", e.exit_code), v("signal", e.signal);
  }
};
struct CheckpointSaved {
  std::string job;
  int64_t attempt = 0, step = 0;
  TH_EVENT("checkpoint") { v("job", e.job), v("attempt", e.attempt), v("step", e.step); }
};
/// From here its ranks are being stopped. `counts`: against the job's retries (a rank failed, and not its
/// node). lost_steps: reached minus saved.
struct AttemptEnded {
  std::string job, reason;
  int64_t attempt = 0, last_step = 0, lost_steps = 0;
  bool succeeded = false, counts = false;
  TH_EVENT("attempt_ended") {
    v("job", e.job), v("reason", e.reason), v("attempt", e.attempt), v("last_step", e.last_step);
    v("lost_steps", e.lost_steps), v("succeeded", e.succeeded), v("counts", e.counts);
  }
};
/// Its ranks are being stopped; when they are gone it finishes as end_state: cancelled | failed (its time is
/// over).
struct JobCancelling {
  std::string job, end_state, reason;
  TH_EVENT("job_cancelling") { v("job", e.job), v("end_state", e.end_state), v("reason", e.reason); }
};
/// state: succeeded | failed | cancelled. `result`: the metrics line of that name as JSON text, or empty.
struct JobFinished {
  std::string job, state, reason, result;
  TH_EVENT("job_finished") {
    v("job", e.job), v("state", e.state), v("reason", e.reason), v("result", e.result);
  }
};
/// What the attempt that has just started holds beside its ranks: steps of the job run there.
struct AttemptReserved {
  std::string job;
  int64_t attempt = 0;
  std::vector<RankPlace> places;
  TH_EVENT("attempt_reserved") { v("job", e.job), v("attempt", e.attempt), v("places", e.places); }
};
/// What the attempt that has just started takes, in thousandths of a GPU, where that is not what the job
/// asked for: it shares a GPU, or goes on with fewer.
struct AttemptSized {
  std::string job;
  int64_t attempt = 0, gpu_milli = 0;
  TH_EVENT("attempt_sized") { v("job", e.job), v("attempt", e.attempt), v("gpu_milli", e.gpu_milli); }
};
/// Why a job is being stopped or will not go on, where its state does not say it: timeout | deadline |
/// node_fail | preempted. It stays until another attempt starts.
struct JobCause {
  std::string job, cause;
  TH_EVENT("job_cause") { v("job", e.job), v("cause", e.cause); }
};

}  // namespace th::ledger
