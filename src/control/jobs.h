#pragma once
// Jobs: queued, placed as whole gangs, started, restarted from their checkpoints, finished. Thread: the loop
// only.

#include <functional>
#include <map>
#include <set>
#include <string>

#include "base/result.h"
#include "control/core.h"
#include "control/job_output.h"
#include "control/slices.h"
#include "request/job_spec.h"

namespace th::control {

/// Why a job does not run yet, as the last look at the queue found.
struct Waiting {
  std::string code, text, smallest_change;
  int64_t estimated_start_ns = 0;  // 0: not known
};

class Jobs {
 public:
  Jobs(Core& core, Slices& slices, JobOutput& output) : core_(core), slices_(slices), output_(output) {}

  /// Returns the job's id. kind: batch | serve. Errors: kNotFound (slice), kUnsatisfiable,
  /// kFailedPrecondition.
  Result<std::string> submit(const request::JobSpec& spec, const std::string& kind);
  /// end_state: cancelled | failed. A job that has ended is left alone.
  void cancel(const std::string& job, const std::string& end_state, const std::string& reason);

  /// After a restart: starts every gang of the ledger again, which finds the ranks that run. Before any node
  /// is heard.
  void restore();
  /// Moves every job on as far as it can. Called after each batch.
  void step();
  /// From now on nothing new is placed or started: what waits is left for the next start.
  void close() { closing_ = true; }
  /// Takes in what the launcher has to tell.
  void take_events();

  const Waiting* waiting(const std::string& job) const;
  /// The fleet's picture with the places that queued jobs without a slice are waiting for.
  reserve::Snapshot reservations() const;
  /// Called for each metrics line that is new.
  std::function<void(const std::string& job, const StoredLine& line)> on_metrics;
  /// Called when a serving job's replica answers.
  std::function<void(const std::string& job, const std::string& url)> on_ready;

 private:
  const request::JobSpec& spec_of(const ledger::Job& job);
  Status check_fits_sync(const request::JobSpec& spec) const;
  Result<std::string> choose_series(const request::JobSpec& spec) const;
  int64_t remaining_ns(const ledger::Job& job, int64_t fallback_ns);

  void step_job(const ledger::Job& job);
  bool over_time(const ledger::Job& job);
  void conclude(const ledger::Job& job);
  void succeed(const ledger::Job& job);
  void plan_slices();
  void plan_in_slice(const ledger::Slice& slice, const std::vector<std::string>& queue);
  void start_attempt(const ledger::Job& job, const ledger::Slice& slice, const reserve::Plan& plan);
  launch::GangSpec gang_of(const ledger::Job& job);
  void note(const std::string& job, const reserve::Refusal& refusal);
  void note(const std::string& job, Waiting waiting);

  void take(const launch::RankChanged& changed);
  void take(const launch::MetricsArrived& arrived);
  void take(const launch::GangChanged& changed);
  void attempt_failed(const ledger::Job& job, const launch::GangChanged& changed);

  Core& core_;
  Slices& slices_;
  JobOutput& output_;
  std::map<std::string, request::JobSpec> specs_;
  std::map<std::string, Waiting> waiting_;
  std::map<std::string, reserve::Plan> planned_;  // of queued jobs without a slice
  std::set<std::string> gangs_;                   // jobs of which ranks may be left
  std::set<std::string> registering_;             // names of models that are being imported: one at a time
  std::set<std::string> refused_;  // tasks of which a line could not be stored, while events are taken
  int64_t planned_version_ = -1;   // Core::version() that the queues were looked at
  int64_t planned_ns_ = 0, look_ns_ = 0;  // when the last look ended, how long it took
  bool closing_ = false;
};

/// The command that serves a model staged as "model" in the job's folder, on `port`.
std::vector<std::string> serve_command(const std::string& deployment, int64_t port);

}  // namespace th::control
