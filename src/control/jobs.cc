#include "control/jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "base/units.h"
#include "control/batch.h"
#include "control/placing.h"
#include "launch/rendezvous.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::Slice;
using ledger::SliceState;

constexpr int64_t kPausePerLook = 4;  // a fifth of the loop's time at most goes into the queues

}  // namespace

Jobs::Jobs(Core& core, Slices& slices, JobOutput& output, Models& models)
    : core_(core), slices_(slices), output_(output), models_(models) {
  slices_.has_ranks = [this](const std::string& job) { return gangs_.count(job) > 0; };
  slices_.can_shrink_to = [this](const std::string& id, int64_t gpus) {
    const Job& job = core_.state().jobs.at(id);
    const request::JobSpec& spec = spec_of(job);
    return job.attempt_open && !job.cancelling() && job.submitted.kind == "batch" && spec.can_rescale &&
           gpus_within(spec, gpus) <= gpus;
  };
  slices_.rescale = [this](const std::string& id, const std::string& slice) {
    const Job& job = core_.state().jobs.at(id);
    preempt_job(job, "a smaller slice " + slice, "to go on in a smaller slice " + slice,
                core_.now_ns() + grace_ms(job) * kMillisecond);
  };
}

const request::JobSpec& Jobs::spec_of(const Job& job) {
  const auto known = specs_.find(job.submitted.job);
  if (known != specs_.end()) return known->second;
  auto json = parse_json(job.submitted.spec, "job spec");
  TH_CHECK(json.has_value());
  auto spec = request::job_spec_from_json(*json);
  if (!spec)
    log_error("job {}: its spec in the ledger is refused: {}", job.submitted.job, spec.error().message);
  TH_CHECK(spec.has_value());
  return specs_[job.submitted.job] = *std::move(spec);
}

void Jobs::cancel(const std::string& id, const std::string& end_state, const std::string& reason) {
  const auto job = core_.state().jobs.find(id);
  if (job == core_.state().jobs.end() || job->second.ended() || job->second.cancelling()) return;
  core_.stage(ledger::JobCancelling{id, end_state, reason});
}

void Jobs::restore() {
  for (const auto& [id, active] : core_.active_jobs()) {
    const Job& job = *active;
    if (job.attempt == 0 || job.slice.empty()) continue;  // nothing runs of what was put back
    core_.launcher().restore_metrics({id, static_cast<int>(job.attempt), 0},
                                     output_.last_line_no(id, job.attempt));
    if (Status started = core_.launcher().start(gang_of(job)); !started) {
      log_error("{}: {}", id, started.error().message);
      continue;
    }
    gangs_.insert(id);
    // The line of a checkpoint may be stored and its event not be.
    const StoredLine* saved = output_.last(id, "checkpoint");
    if (saved && saved->step >= 0 && saved->step != job.checkpoint_step) {
      core_.stage(ledger::CheckpointSaved{id, saved->attempt, saved->step});
    }
    if (!job.attempt_open || job.cancelling()) core_.launcher().stop(id);
    for (const ledger::Rank& rank : job.ranks) {
      const ledger::Vm& vm = core_.state().vms.at(rank.place.vm);
      if (vm.state != ledger::VmState::kDown && vm.state != ledger::VmState::kDeleted) continue;
      core_.node_launcher().on_vm_lost(
          vm.id, fmt::format("node {} on host {} is down: {}", vm.id, vm.host, vm.reason));
    }
  }
}

void Jobs::step() {
  take_events();
  const auto active = core_.active_jobs();
  for (const auto& [id, job] : active) step_job(*job);
  take_events();
  if (closing_) return;
  // Queues are looked at again when something changed, and once a second, since time itself frees GPUs; a
  // long look is followed by a longer pause, so that commands are answered in between.
  const int64_t since_ns = core_.monotonic_ns() - planned_ns_;
  if (since_ns < kPausePerLook * look_ns_ || (planned_version_ == core_.version() && since_ns < kSecond))
    return;
  const int64_t begin_ns = core_.monotonic_ns();
  end_late_queued();
  plan_slices();
  std::map<std::string, std::vector<std::string>> queues;
  for (const auto& [id, active_job] : core_.active_jobs()) {
    const Job& job = *active_job;
    if (job.submitted.kind == "step") continue;
    const bool waits = !job.attempt_open && !job.attempt_succeeded && !job.cancelling() && !gangs_.count(id);
    if (waits && !hold_back(job)) queues[job.slice].push_back(id);
  }
  for (const auto& [slice, queue] : queues) plan_in_slice(core_.state().slices.at(slice), queue);
  start_steps();
  // Somebody got a GPU that another one may share.
  const bool again = std::exchange(look_again_, false) && !unstarted_.empty();
  start_gangs();
  planned_version_ = again ? -1 : core_.version();
  planned_ns_ = core_.monotonic_ns();
  look_ns_ = planned_ns_ - begin_ns;
}

void Jobs::step_job(const Job& job) {
  const std::string& id = job.submitted.job;
  const auto slice = core_.state().slices.find(job.slice);
  if (!job.cancelling() && slice != core_.state().slices.end()) {
    const Slice& of = slice->second;
    if (of.state == SliceState::kFailed) {
      cancel(id, "failed", fmt::format("slice '{}' could not be made: {}", of.terms.name, of.reason));
    } else if (!of.live() || of.state == SliceState::kReleasing) {
      cancel(id, "cancelled", fmt::format("slice '{}' was released: {}", of.terms.name, of.reason));
    }
  }
  if (!job.cancelling() && over_time(job)) {
    const int64_t limit_ns = *spec_of(job).duration_ns;
    stop_with_cause(job, "timeout", fmt::format("its time limit of {} is over", format_duration(limit_ns)));
  }
  if (!job.cancelling() && over_deadline(job)) stop_at_deadline(job);
  if (job.submitted.kind == "step") step_of_job(job);
  end_without_nodes(job);
  signal_before_end(job);
  if (job.cancelling()) core_.launcher().stop(id);
  const bool ending = job.cancelling() || (job.attempt > 0 && !job.attempt_open);
  if (!ending) return;
  take_events();
  if (!gangs_.count(id) && !(spec_of(job).batch && has_live_steps(id))) conclude(job);
}

void Jobs::stop_with_cause(const Job& job, const char* cause, const std::string& reason) {
  core_.stage(ledger::JobCause{job.submitted.job, cause});
  cancel(job.submitted.job, "failed", reason);
}

void Jobs::stop_at_deadline(const Job& job) {
  stop_with_cause(job, "deadline", "it cannot end by its deadline, " + format_time(spec_of(job).deadline_ns));
}

void Jobs::end_late_queued() {
  std::vector<const Job*> late;
  for (const auto& [id, job] : core_.queued_jobs()) {
    if (over_deadline(*job)) late.push_back(job);
  }
  for (const Job* job : late) stop_at_deadline(*job);
}

bool Jobs::over_deadline(const Job& job) {
  const request::JobSpec& spec = spec_of(job);
  if (spec.deadline_ns == 0 || job.attempt_succeeded) return false;
  const int64_t needed_ns = job.attempt == 0 ? spec.duration_ns.value_or(0) : 0;
  return core_.now_ns() > spec.deadline_ns - needed_ns;
}

/// Whether the job waits for something that is not room; notes what.
bool Jobs::hold_back(const Job& job) {
  auto waiting = not_eligible(core_.state(), job, specs(), core_.now_ns());
  if (waiting) note(job.submitted.job, *std::move(waiting));
  return waiting.has_value();
}

/// Not while it may have ended in time: after a start, until its nodes have said what became of it.
bool Jobs::over_time(const Job& job) {
  const auto limit_ns = spec_of(job).duration_ns;
  if (!limit_ns || job.started_ns == 0 || job.attempt_succeeded) return false;
  if (core_.now_ns() - job.started_ns < *limit_ns) return false;
  return std::all_of(job.ranks.begin(), job.ranks.end(), [&](const ledger::Rank& rank) {
    const ledger::Vm& vm = core_.state().vms.at(rank.place.vm);
    const bool lost = vm.state == ledger::VmState::kDown || vm.state == ledger::VmState::kDeleted;
    return lost || !core_.nodes_start_ranks() || core_.node_launcher().heard(vm.id);
  });
}

/// Nothing of the last attempt is left.
void Jobs::conclude(const Job& job) {
  const std::string& id = job.submitted.job;
  if (job.cancelling()) {
    const StoredLine* result = output_.last(id, "result");
    core_.stage(ledger::JobFinished{id, job.end_state, job.reason, result ? result->line : ""});
  } else if (job.attempt_succeeded) {
    succeed(job);
  } else if (job.preempted_until_ns != 0) {
    put_back(job);
  } else if (job.cause == "node_fail") {
    core_.stage(ledger::JobFinished{id, "failed", job.reason + "; it was not to be requeued", ""});
  } else if (job.retries_used > spec_of(job).retries) {
    const std::string text = fmt::format("{}; no retries left ({} used)", job.reason, spec_of(job).retries);
    core_.stage(ledger::JobFinished{id, "failed", text, ""});
  }
  if (!job.ended()) return;
  waiting_.erase(id), planned_.erase(id), specs_.erase(id);
  if (job.submitted.kind == "step") return;
  const auto slice = core_.state().slices.find(job.slice);
  if (slice != core_.state().slices.end() && slice->second.terms.implicit) {
    static_cast<void>(slices_.release(job.slice, "its job has ended"));
  }
}

void Jobs::succeed(const Job& job) {
  const std::string id = job.submitted.job;
  const StoredLine* result = output_.last(id, "result");
  const std::string text = result ? result->line : "";
  const auto& name = spec_of(job).register_as;
  if (!name) {
    core_.stage(ledger::JobFinished{id, "succeeded", "", text});
    return;
  }
  if (models_.is_importing(*name)) return;  // by this job, or by one that is first
  const std::string dir =
      text.empty() ? "" : get_string(*parse_json(text, "result"), "model_dir", std::string()).value_or("");
  if (!node::check_inside_path(dir, "model_dir")) {
    core_.stage(ledger::JobFinished{
        id, "failed", "it ended well, but its metrics name no model_dir inside its folder to register",
        text});
    return;
  }
  const std::filesystem::path folder = core_.state_dir() / "jobs" / id / dir;
  models_.import(*name, folder, [this, id, text](const Result<registry::Model>& model) {
    const Job& current = core_.state().jobs.at(id);
    if (current.ended() || current.cancelling()) return;
    if (!model) {
      core_.stage(ledger::JobFinished{
          id, "failed", "it ended well, but its model could not be registered: " + model.error().message,
          text});
      return;
    }
    models_.stage(*model, id);
    core_.stage(ledger::JobFinished{id, "succeeded", "", text});
    const auto slice = core_.state().slices.find(current.slice);
    if (slice != core_.state().slices.end() && slice->second.terms.implicit) {
      static_cast<void>(slices_.release(current.slice, "its job has ended"));
    }
  });
}

const Waiting* Jobs::waiting(const std::string& job) const {
  const auto found = waiting_.find(job);
  return found == waiting_.end() ? nullptr : &found->second;
}

void Jobs::note(const std::string& job, Waiting waiting) { waiting_[job] = std::move(waiting); }

void Jobs::note(const std::string& job, const reserve::Refusal& refusal) { note(job, waiting_of(refusal)); }

reserve::Snapshot Jobs::reservations() const {
  core_.extend_overdue_claims();  // a lease may have run out since the last step
  reserve::Snapshot out = core_.snapshot();
  for (const auto& [job, plan] : planned_) {
    if (auto next = out.with_claim(reserve::claim_of(plan, job))) out = *std::move(next);
  }
  return out;
}

/// The slice's nodes that are there, and what runs on them until when.
reserve::Snapshot Jobs::inside_of(const Slice& slice, std::vector<reserve::Running>* running) {
  const int64_t now_ns = core_.now_ns();
  std::vector<reserve::HostGpus> hosts;
  const auto live = live_vms(core_.state(), slice);
  for (const ledger::Share& share : slice.terms.hosts) {
    const auto vm = live.find(share.host);
    if (vm == live.end() || vm->second->state != ledger::VmState::kReady || core_.is_leaving(vm->second->id))
      continue;
    hosts.push_back({*core_.fleet().find_host(share.host), reserve::all_gpus(vm->second->gpus)});
  }
  std::sort(hosts.begin(), hosts.end(), [](const auto& a, const auto& b) { return a.host < b.host; });
  reserve::Snapshot inside = reserve::Snapshot::within(core_.fleet_ptr(), hosts);
  std::map<std::pair<reserve::HostIndex, reserve::GpuMask>, int64_t> shared;
  std::map<reserve::HostIndex, reserve::GpuMask> taken;
  for (const auto& [id, active] : core_.active_jobs()) {
    const Job& job = *active;
    if (job.slice != slice.terms.slice || (!job.attempt_open && !gangs_.count(id))) continue;
    std::map<reserve::HostIndex, reserve::GpuMask> used;
    for (const ledger::RankPlace& place : places_of(job)) {
      const auto host = core_.fleet().find_host(core_.state().vms.at(place.vm).host);
      if (!host) continue;
      const auto there = std::ranges::lower_bound(hosts, *host, {}, &reserve::HostGpus::host);
      if (there == hosts.end() || there->host != *host) continue;
      for (int64_t gpu : place.gpus) used[*host] |= (1u << gpu) & there->gpus;
    }
    // Also when the slice's time is over and it is about to be given back.
    const int64_t until_ns = std::max(slice.terms.end_ns, now_ns + kSecond);
    reserve::Claim claim{id, now_ns, until_ns, {}};
    const auto limit_ns = spec_of(job).duration_ns;
    if (limit_ns) claim.end_ns = std::clamp(job.started_ns + *limit_ns, now_ns + kSecond, until_ns + kSecond);
    for (const auto& [host, gpus] : used) {
      if (gpus) claim.hosts.push_back({host, gpus});
    }
    if (claim.hosts.empty()) continue;
    if (spec_of(job).gpu_milli < 1000) {  // the GPU is in use until the last of those that share it ends
      int64_t& end_ns = shared[{claim.hosts[0].host, claim.hosts[0].gpus}];
      end_ns = std::max(end_ns, claim.end_ns);
      continue;
    }
    // After a restart, ranks of an attempt that is over may be told of beside those of the next one.
    for (reserve::HostGpus& part : claim.hosts) {
      const reserve::GpuMask own = part.gpus & ~taken[part.host];
      taken[part.host] |= part.gpus;
      part.gpus = own;
    }
    std::erase_if(claim.hosts, [](const reserve::HostGpus& part) { return part.gpus == 0; });
    if (claim.hosts.empty()) continue;
    if (auto next = inside.with_claim(claim)) {
      inside = *std::move(next);
      if (running) running->push_back(running_job(job, claim));
    }
  }
  for (const auto& [part, end_ns] : shared) {
    const reserve::Claim claim{
        fmt::format("shared {} {}", part.first, part.second), now_ns, end_ns, {{part.first, part.second}}};
    if (auto next = inside.with_claim(claim)) inside = *std::move(next);
  }
  return inside;
}

int64_t Jobs::unused_gpus(const Slice& slice) const {
  int64_t gpus = slice.terms.gpus;
  for (const auto& [id, active] : core_.active_jobs()) {
    const Job& job = *active;
    if (job.slice != slice.terms.slice || (!job.attempt_open && !gangs_.count(id))) continue;
    for (const ledger::RankPlace& place : places_of(job)) gpus -= static_cast<int64_t>(place.gpus.size());
  }
  return gpus;
}

reserve::Request Jobs::request_in(const Slice& slice, const std::string& id, const request::JobSpec& spec) {
  reserve::Request request;
  request.name = id, request.gpus = gpus_within(spec, slice.terms.gpus);
  // It is to be smaller anyway, and then rather starts now.
  if (request.gpus < spec.gpus) request.gpus = std::min(request.gpus, gpus_within(spec, unused_gpus(slice)));
  const int64_t left_ns = slice.terms.end_ns - core_.now_ns();
  request.duration_ns = std::min(left_ns, spec.duration_ns.value_or(left_ns));
  request.gpus_per_host = static_cast<int32_t>(gpus_per_host(spec));
  request.max_switches = static_cast<int32_t>(spec.max_switches);
  request.segment = static_cast<int32_t>(spec.segment);
  if (!picks_hosts(spec)) return request;
  request.only.emplace();
  for (const ledger::Share& share : slice.terms.hosts) {
    const auto host = core_.fleet().find_host(share.host);
    const ledger::Vm* vm = live_vm(core_.state(), slice, share.host);
    if (host && allows_host(core_.fleet(), spec, *host, vm ? vm->id : "")) request.only->push_back(*host);
  }
  std::ranges::sort(*request.only);
  return request;
}

}  // namespace th::control
