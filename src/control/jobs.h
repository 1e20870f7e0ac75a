#pragma once
// Jobs: queued, placed as whole gangs, started, restarted from checkpoints, finished. Thread: the loop only.

#include <functional>
#include <map>
#include <set>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "control/eligibility.h"
#include "control/job_output.h"
#include "control/models.h"
#include "control/slices.h"
#include "control/stager.h"
#include "request/job_spec.h"
#include "reserve/queue.h"

namespace th::control {

inline constexpr int64_t kDefaultBatchNs = kHour;  // of a slice made for one job that names no time

class Jobs {
 public:
  Jobs(Core& core, Slices& slices, JobOutput& output, Models& models);

  /// Returns the job's id, of an array its first task's. kind: batch | serve. Errors: kNotFound (slice, a job
  /// of a dependency), kUnsatisfiable, kFailedPrecondition, kInvalidArgument.
  Result<std::string> submit(const request::JobSpec& given, const std::string& kind);
  /// A launch inside of a running batch job, on the nodes and GPUs that it has: waits while other steps use
  /// them. Returns its id. Errors: kNotFound, kFailedPrecondition (the job does not run), kUnsatisfiable.
  Result<std::string> submit_step(const std::string& job, request::JobSpec spec);
  /// When and where it would start, behind all that wait now. Nothing is kept. Errors: as of submit.
  Result<Estimate> estimate(const request::JobSpec& spec);
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
  /// Batch jobs with ranks on the node save their work and are put back; `ends_ns`: until when.
  void evacuate(const std::string& vm, const std::string& why, int64_t ends_ns);
  /// Whether ranks may be left there.
  bool runs_on(const std::string& vm) const;

  /// The same with the smallest change, which long queues leave out. Cost: a look at the queue.
  void explain(const std::string& job);
  const Waiting* waiting(const std::string& job) const;
  const request::JobSpec& spec_of(const ledger::Job& job);
  /// The fleet's picture with the places that queued jobs without a slice are waiting for.
  reserve::Snapshot reservations() const;
  /// Called for each metrics line that is new.
  std::function<void(const std::string& job, const StoredLine& line)> on_metrics;
  /// An event of the launcher; whether it is of a gang that is no job.
  std::function<bool(const launch::Event& event)> take_check;
  /// Called when a serving job's replica answers.
  std::function<void(const std::string& job, const std::string& url)> on_ready;

 private:
  SpecOf specs() {
    return [this](const ledger::Job& job) -> const request::JobSpec& { return spec_of(job); };
  }
  Status check_options(const request::JobSpec& spec);
  const reserve::Partition* partition_of(const request::JobSpec& spec) const;
  Result<std::string> slice_for(const request::JobSpec& spec);
  std::string stage_job(const request::JobSpec& spec, const std::string& kind, const std::string& slice);
  bool hold_back(const ledger::Job& job);
  Status check_fits_sync(const request::JobSpec& spec) const;
  Result<std::string> choose_series(const request::JobSpec& spec) const;
  int64_t remaining_ns(const ledger::Job& job, int64_t fallback_ns);

  void step_job(const ledger::Job& job);
  void stop_with_cause(const ledger::Job& job, const char* cause, const std::string& reason);
  bool over_time(const ledger::Job& job);
  bool over_deadline(const ledger::Job& job);
  void stop_at_deadline(const ledger::Job& job);
  void end_late_queued();
  void conclude(const ledger::Job& job);
  void succeed(const ledger::Job& job);
  reserve::QueuePlan look_at_queue(std::vector<reserve::Pending>& pending, std::string_view find_changes,
                                   bool may_move = false);
  reserve::Running running_job(const ledger::Job& job, reserve::Claim claim);
  std::vector<reserve::Running> running_slices();
  reserve::Pending pending_job(const ledger::Job& job, reserve::Request request);
  reserve::Pending pending_of(const request::JobSpec& spec, const ledger::Owner& owner, int64_t submitted_ns,
                              reserve::Request request) const;
  reserve::QueuePlan look_inside(const ledger::Slice& slice, std::span<const reserve::Pending> pending,
                                 bool may_move = false);
  void preempt(const reserve::Preemption& preemption);
  void preempt_job(const ledger::Job& job, const std::string& by, const std::string& why, int64_t ends_ns);
  const ledger::Job* movable(const reserve::Running& running);
  void defragment(reserve::Snapshot snapshot, const reserve::QueuePlan& plan,
                  std::span<const reserve::Pending> pending, std::span<const reserve::Running> running);
  void put_back(const ledger::Job& job);
  int64_t grace_ms(const ledger::Job& job) const;
  void plan_slices();
  reserve::Snapshot inside_of(const ledger::Slice& slice, std::vector<reserve::Running>* running = nullptr);
  reserve::Request request_in(const ledger::Slice& slice, const std::string& id,
                              const request::JobSpec& spec);
  int64_t unused_gpus(const ledger::Slice& slice) const;
  std::vector<std::string> place_parts(const ledger::Slice& slice, const std::vector<std::string>& queue);
  void plan_in_slice(const ledger::Slice& slice, const std::vector<std::string>& queue);
  void start_attempt(const ledger::Job& job, const ledger::Slice& slice, const reserve::Plan& plan);
  void start_ranks(const ledger::Job& job, const std::string& slice, std::vector<ledger::RankPlace> ranks,
                   int64_t gpu_milli);
  /// Whether who starts gangs can start this one.
  Status check_launcher(const request::JobSpec& spec) const;
  void start_gangs();
  void start_steps();
  void step_of_job(const ledger::Job& job);
  bool has_live_steps(const std::string& job);
  void signal_before_end(const ledger::Job& job);
  void end_without_nodes(const ledger::Job& job);
  void add_batch(const ledger::Job& job, const request::JobSpec& spec, launch::GangSpec& gang);
  launch::GangSpec gang_of(const ledger::Job& job);
  void note(const std::string& job, const reserve::Refusal& refusal);
  void note(const std::string& job, Waiting waiting);

  void take(const launch::RankChanged& changed);
  void take(const launch::MetricsArrived& arrived);
  void take(const launch::GangChanged& changed);
  void grow_at_checkpoint(const ledger::Job& job);
  void attempt_failed(const ledger::Job& job, const launch::GangChanged& changed);

  Core& core_;
  Slices& slices_;
  JobOutput& output_;
  Models& models_;
  Stager stager_{core_};
  std::map<std::string, request::JobSpec> specs_;
  std::map<std::string, Waiting> waiting_;
  std::map<std::string, reserve::Plan> planned_;  // of queued jobs without a slice
  std::vector<std::string> unstarted_;    // attempts that are staged and not handed to the launcher yet
  std::set<std::string> gangs_;           // jobs of which ranks may be left
  std::set<std::string> refused_;         // tasks of which a line could not be stored, while events are taken
  int64_t planned_version_ = -1;          // Core::version() that the queues were looked at
  int64_t planned_ns_ = 0, look_ns_ = 0;  // when the last look ended, how long it took
  int64_t next_defrag_ns_ = 0;
  bool look_again_ = false;  // what was planned makes room for what was not
  bool closing_ = false;
};

/// The spec as the ledger keeps it.
std::string spec_text(const request::JobSpec& spec);
/// The command that serves a model staged as "model" in the job's folder, on `port`.
std::vector<std::string> serve_command(const std::string& deployment, const std::string& address,
                                       int64_t port);

}  // namespace th::control
