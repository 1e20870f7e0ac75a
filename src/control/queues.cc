// The queues: jobs that wait for a slice of their own, and those that wait inside of a slice.

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/units.h"
#include "control/batch.h"
#include "control/jobs.h"
#include "control/placing.h"
#include "control/stacks.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::Slice;
using ledger::SliceState;

constexpr int64_t kDefaultServeNs = 24 * kHour;
constexpr size_t kExplained = 20;  // requests of a queue that are told what would start them, on each look

/// A minute more, where that does not pass a limit which the duration alone keeps.
int64_t with_margin(const reserve::QueuePolicy& policy, const reserve::Standpoint& who, int64_t duration_ns) {
  int64_t most_ns = INT64_MAX;
  const reserve::Qos* qos = policy.find_qos(who.qos);
  const reserve::Partition* partition = policy.find_partition(who.partition);
  if (qos && qos->max_time_ns) most_ns = *qos->max_time_ns;
  if (partition && partition->max_time_ns) most_ns = std::min(most_ns, *partition->max_time_ns);
  return std::max(duration_ns, std::min(duration_ns + kMinute, most_ns));
}

reserve::Standpoint standpoint_of(const request::JobSpec& spec, const ledger::Owner& owner,
                                  int64_t submitted_ns) {
  return {account_of(owner), owner.user,   qos_of(owner),
          owner.partition,   submitted_ns, spec.nice - spec.priority};
}

}  // namespace

reserve::Pending Jobs::pending_job(const Job& job, reserve::Request request) {
  reserve::Pending pending = pending_of(spec_of(job), job.owner, job.submitted_ns, std::move(request));
  pending.after = job.preempted_by;
  return pending;
}

reserve::Pending Jobs::pending_of(const request::JobSpec& spec, const ledger::Owner& owner,
                                  int64_t submitted_ns, reserve::Request request) const {
  reserve::Pending pending;
  pending.request = std::move(request);
  pending.who = standpoint_of(spec, owner, submitted_ns);
  // It has waited for so few switches as long as it was told to.
  const int64_t eligible_ns = std::max(submitted_ns, spec.begin_ns);
  if (spec.switches_wait_ns > 0 && core_.now_ns() - eligible_ns >= spec.switches_wait_ns)
    pending.request.max_switches = 0;
  if (spec.deadline_ns != 0) pending.deadline_ns = spec.deadline_ns;
  pending.reservation = spec.reservation;  // also one that is no more: it has no other place
  return pending;
}

int64_t Jobs::grace_ms(const Job& job) const {
  const reserve::Qos* qos = core_.policy().find_qos(qos_of(job.owner));
  return std::max<int64_t>(1000, (qos ? qos->grace_ns : 5 * kSecond) / kMillisecond);
}

reserve::Running Jobs::running_job(const Job& job, reserve::Claim claim) {
  reserve::Running running;
  running.claim = std::move(claim);
  running.who = standpoint_of(spec_of(job), job.owner, job.submitted_ns);
  running.started_ns = job.attempt_started_ns, running.saved_ns = job.checkpoint_ns;
  running.preemptible = job.attempt_open && !job.cancelling() && job.submitted.kind == "batch";
  if (job.preempted_until_ns != 0 && !job.attempt_open) {
    running.ends_ns = std::max(job.preempted_until_ns, core_.now_ns() + kSecond);
    running.makes_room_for = job.preempted_by;
  }
  return running;
}

/// Of those that live: jobs on slices of their own, slices that were bought as spot, and what is being given
/// back.
std::vector<reserve::Running> Jobs::running_slices() {
  std::vector<reserve::Running> out;
  for (const std::string& id : core_.active_slices()) {
    const Slice& slice = core_.state().slices.at(id);
    const reserve::Claim* claim = core_.find_claim(id);
    if (!claim) continue;
    const auto job =
        slice.terms.implicit ? core_.state().jobs.find(slice.terms.name) : core_.state().jobs.end();
    reserve::Running running;
    running.claim = *claim;
    if (job != core_.state().jobs.end() && job->second.slice == id) {
      running = running_job(job->second, *claim);
      running.reservation = slice.owner.reservation;
    } else {
      running.who.account = account_of(slice.owner), running.who.qos = qos_of(slice.owner);
      running.who.submitted_ns = running.started_ns = slice.held_ns;
      running.preemptible =
          slice.owner.spot && (slice.state == SliceState::kStarting || slice.state == SliceState::kReady);
      running.comes_back = false;
    }
    if (slice.state == SliceState::kReleasing) {
      running.preemptible = false;
      if (!running.ends_ns) running.ends_ns = core_.now_ns() + kSecond;
    }
    if (running.preemptible || running.ends_ns) out.push_back(std::move(running));
  }
  return out;
}

reserve::QueuePlan Jobs::look_at_queue(std::vector<reserve::Pending>& pending, std::string_view find_changes,
                                       bool may_move) {
  for (const auto& [id, queued] : core_.queued_jobs()) {
    const Job& job = *queued;
    if (hold_back(job)) continue;
    const request::JobSpec& spec = spec_of(job);
    const auto series = choose_series(spec);
    if (!series) continue;
    const int64_t duration_ns = spec.duration_ns.value_or(job.serves() ? kDefaultServeNs : kDefaultBatchNs);
    // A minute over the job's own limit, so that it ends by itself and not with the slice.
    pending.push_back(pending_job(job, own_request(core_.fleet(), id, spec, *series, duration_ns)));
    pending.back().request.duration_ns = with_margin(core_.policy(), pending.back().who, duration_ns);
  }
  if (pending.empty()) return {};
  const int64_t now_ns = core_.now_ns();
  const auto running = running_slices();
  const auto reservations = core_.reservations();
  const reserve::Snapshot snapshot = core_.snapshot_without_suspects();
  if (find_changes == "*" && pending.size() > kExplained) find_changes = "";
  reserve::QueuePlan plan = reserve::plan_queue({snapshot,
                                                 core_.policy(),
                                                 core_.tenants().standing(core_.state(), now_ns),
                                                 core_.tenants().uses(now_ns),
                                                 pending,
                                                 running,
                                                 reservations,
                                                 now_ns,
                                                 {},
                                                 find_changes});
  if (may_move) defragment(snapshot, plan, pending, running);
  return plan;
}

void Jobs::plan_slices() {
  std::vector<reserve::Pending> pending;
  const reserve::QueuePlan plan = look_at_queue(pending, "*", true);
  planned_.clear();
  for (const reserve::Decision& decision : plan.decisions) {
    const std::string& id = pending[decision.index].request.name;
    const Job& job = core_.state().jobs.at(id);
    if (decision.start) {
      ledger::Owner owner = job.owner;
      owner.account = account_of(owner), owner.qos = qos_of(owner);
      owner.reservation = pending[decision.index].reservation;
      const auto stack = find_stack(core_.state(), spec_of(job).stack);
      slices_.lease_for_job(id, pending[decision.index].request.series, stack ? stack->id() : std::string(),
                            *decision.start, owner);
      stager_.begin(id, spec_of(job), owner.account);
      waiting_.erase(id);
      continue;
    }
    note(id, decision.refusal);
    waiting_[id].priority = decision.priority / 1'000'000;
    if (decision.refusal.later) planned_[id] = *decision.refusal.later;
  }
  for (const reserve::Preemption& preemption : plan.preemptions) preempt(preemption);
}

void Jobs::explain(const std::string& id) {
  const auto job = core_.state().jobs.find(id);
  const Waiting* known = waiting(id);
  if (closing_ || !known || !known->smallest_change.empty() || job == core_.state().jobs.end() ||
      !job->second.slice.empty())
    return;
  std::vector<reserve::Pending> pending;
  for (const reserve::Decision& decision : look_at_queue(pending, id).decisions) {
    if (pending[decision.index].request.name == id && !decision.refusal.changes.empty())
      waiting_[id].smallest_change = decision.refusal.changes[0].text;
  }
}

void Jobs::preempt(const reserve::Preemption& preemption) {
  const auto slice = core_.state().slices.find(preemption.id);
  const std::string why = "to make room for " + preemption.makes_room_for;
  if (slice == core_.state().slices.end())
    return preempt_job(core_.state().jobs.at(preemption.id), preemption.makes_room_for, why,
                       preemption.ends_ns);
  if (slice->second.terms.implicit)
    return preempt_job(core_.state().jobs.at(slice->second.terms.name), preemption.makes_room_for, why,
                       preemption.ends_ns);
  static_cast<void>(slices_.release(preemption.id, "taken back for " + preemption.makes_room_for));
}

/// The attempt ends here; its ranks have until then to save a checkpoint, and SIGTERM tells them.
void Jobs::preempt_job(const Job& job, const std::string& by, const std::string& why, int64_t ends_ns) {
  const std::string id = job.submitted.job;
  const std::string reason = fmt::format("preempted {}; its ranks have {} to save their work", why,
                                         format_duration(grace_ms(job) * kMillisecond));
  log_info("{}: {}", id, reason);
  const StoredLine* last = output_.last(id, "progress", job.attempt);
  core_.stage(ledger::JobPreempted{id, by, reason, ends_ns});
  core_.stage(ledger::AttemptEnded{id, reason, job.attempt, last ? std::max<int64_t>(0, last->step) : 0, 0,
                                   false, false});
  core_.launcher().stop(id);
}

bool Jobs::runs_on(const std::string& vm) const {
  return std::ranges::any_of(core_.active_jobs(), [&](const auto& active) {
    const std::vector<ledger::RankPlace> places = places_of(*active.second);
    return (active.second->attempt_open || gangs_.count(active.first)) &&
           std::ranges::find(places, vm, &ledger::RankPlace::vm) != places.end();
  });
}

void Jobs::evacuate(const std::string& vm, const std::string& why, int64_t ends_ns) {
  const auto active = core_.active_jobs();
  for (const auto& [id, job] : active) {
    const std::vector<ledger::RankPlace> places = places_of(*job);
    const bool here = std::ranges::find(places, vm, &ledger::RankPlace::vm) != places.end();
    if (here && job->attempt_open && !job->cancelling() && job->submitted.kind == "batch")
      preempt_job(*job, "the cloud", why, ends_ns);
  }
}

/// Nothing of the preempted attempt is left.
void Jobs::put_back(const Job& job) {
  const auto slice = core_.state().slices.find(job.slice);
  if (slice == core_.state().slices.end() || !slice->second.terms.implicit) return;  // it waits in its slice
  const std::string id = job.submitted.job, own = job.slice, reason = job.reason;
  core_.stage(ledger::JobRequeued{id, reason});
  static_cast<void>(slices_.release(own, "its job was preempted"));
}

reserve::QueuePlan Jobs::look_inside(const Slice& slice, std::span<const reserve::Pending> pending,
                                     bool may_move) {
  const int64_t now_ns = core_.now_ns();
  std::vector<reserve::Running> running;
  const reserve::Snapshot inside = inside_of(slice, &running);
  reserve::QueuePlan plan = reserve::plan_queue({inside,
                                                 core_.policy(),
                                                 core_.tenants().standing(core_.state(), now_ns),
                                                 {},
                                                 pending,
                                                 running,
                                                 {},
                                                 now_ns,
                                                 {},
                                                 pending.size() > kExplained ? "" : "*"});
  if (may_move) defragment(inside, plan, pending, running);
  return plan;
}

void Jobs::plan_in_slice(const Slice& slice, const std::vector<std::string>& waiting) {
  const int64_t now_ns = core_.now_ns();
  if (slice.state != SliceState::kReady) {
    const int64_t estimate_ns = std::max(slice.terms.start_ns, now_ns);
    for (const std::string& id : waiting) {
      note(id, {"slice", fmt::format("slice '{}' is {}", slice.terms.name, ledger::name_of(slice.state)), "",
                estimate_ns, 0});
    }
    return;
  }
  if (slice.resize && slice.resize->asked.gpus < slice.terms.gpus) {
    for (const std::string& id : waiting) {
      note(id, {"slice",
                fmt::format("slice '{}' is shrinking to {} GPUs", slice.terms.name, slice.resize->asked.gpus),
                "", 0, 0});
    }
    return;
  }
  const std::vector<std::string> queue = place_parts(slice, waiting);
  std::vector<reserve::Pending> pending;
  for (const std::string& id : queue) {
    const Job& job = core_.state().jobs.at(id);
    pending.push_back(pending_job(job, request_in(slice, id, spec_of(job))));
    pending.back().reservation.clear();
  }
  const reserve::QueuePlan plan = look_inside(slice, pending, true);
  const std::string repair = slices_.repair_note(slice.terms.slice);
  for (const reserve::Decision& decision : plan.decisions) {
    const std::string& id = queue[decision.index];
    const Job& job = core_.state().jobs.at(id);
    if (decision.start && (!job.serves() || decision.start->hosts.size() == 1)) {
      start_attempt(job, slice, *decision.start);
      continue;
    }
    if (decision.start) {
      note(id, {"busy", "its GPUs have to be on one node, and no node has enough free ones", "", 0, 0});
      continue;
    }
    note(id, decision.refusal);
    waiting_[id].priority = decision.priority / 1'000'000;
    if (!repair.empty())
      waiting_[id].text += fmt::format("; slice '{}' is degraded: {}", slice.terms.name, repair);
  }
  for (const reserve::Preemption& preemption : plan.preemptions) preempt(preemption);
}

}  // namespace th::control
