// The one place that changes State. Each step checks first and changes after, so that a refused event leaves
// no trace.

#include <algorithm>
#include <charconv>

#include "base/units.h"
#include "ledger/apply_access.h"
#include "ledger/apply_tenants.h"
#include "ledger/state.h"

namespace th::ledger {
namespace {

Status refuse(std::string what) { return fail(Code::kDataLoss, std::move(what)); }

constexpr size_t kMaxLostNodes = 100;  // of one host that are remembered

/// The number in "job-12"; 0 where there is none.
int64_t number_of(const std::string& id) {
  const size_t dash = id.rfind('-');
  int64_t out = 0;
  if (dash != std::string::npos) std::from_chars(id.data() + dash + 1, id.data() + id.size(), out);
  return out;
}

class Applier {
 public:
  Applier(State& state, int64_t now_ns) : s_(state), now_(now_ns) {}

  template <class E>
  requires requires(State& s, const E& e) { detail::apply(s, e, int64_t{}); }
  Status operator()(const E& e) { return detail::apply(s_, e, now_); }

  Status operator()(const FleetLoaded& e) {
    s_.fleet = e;
    return {};
  }
  Status operator()(const SliceHeld& e) {
    if (s_.slices.count(e.slice)) return refuse("slice " + e.slice + " exists already");
    Slice& slice = s_.slices[e.slice];
    slice.terms = e;
    slice.held_ns = now_;
    if (e.implicit) {
      if (auto job = s_.jobs.find(e.name); job != s_.jobs.end()) job->second.slice = e.slice;
    }
    s_.next_slice = std::max(s_.next_slice, number_of(e.slice) + 1);
    return {};
  }
  Status operator()(const SliceHostReplaced& e) {
    return with_slice(e.slice, {SliceState::kStarting, SliceState::kReady}, [&](Slice& slice) -> Status {
      auto& hosts = slice.terms.hosts;
      const auto lost =
          std::find_if(hosts.begin(), hosts.end(), [&](const Share& h) { return h.host == e.lost; });
      if (lost == hosts.end()) return refuse("slice " + e.slice + " has no host " + e.lost);
      *lost = e.host;
      if (const auto group = slice.groups.find(e.lost); group != slice.groups.end())
        slice.groups[e.host.host] = group->second;
      return {};
    });
  }
  Status operator()(const SliceCommitted& e) {
    return move_slice(e.slice, {SliceState::kHeld}, SliceState::kStarting, {});
  }
  Status operator()(const SliceExpired& e) {
    return move_slice(e.slice, {SliceState::kHeld}, SliceState::kExpired, e.reason);
  }
  Status operator()(const SliceReady& e) {
    return with_slice(e.slice, {SliceState::kStarting}, [&](Slice& slice) -> Status {
      slice.state = SliceState::kReady;
      slice.ready_ns = slice.metered_until_ns = now_;
      int64_t gpus = 0;
      for (const std::string& vm : slice.vms) {
        if (s_.vms[vm].state == VmState::kReady) gpus += s_.vms[vm].gpus;
      }
      meter(slice, gpus);
      return {};
    });
  }
  Status operator()(const SliceReleasing& e) {
    return with_slice(e.slice, {SliceState::kHeld, SliceState::kStarting, SliceState::kReady},
                      [&](Slice& slice) -> Status {
                        if (slice.state == SliceState::kReady) meter(slice, 0);
                        slice.resize.reset();
                        slice.state = SliceState::kReleasing;
                        slice.reason = e.reason;
                        return {};
                      });
  }
  Status operator()(const SliceReleased& e) {
    return move_slice(e.slice, {SliceState::kReleasing}, SliceState::kReleased, e.reason);
  }
  Status operator()(const SliceFailed& e) {
    return move_slice(e.slice, {SliceState::kStarting}, SliceState::kFailed, e.reason);
  }

  Status operator()(const VmRequested& e) {
    if (s_.vms.count(e.vm)) return refuse("VM " + e.vm + " exists already");
    return with_slice(e.slice, {SliceState::kStarting, SliceState::kReady}, [&](Slice& slice) -> Status {
      Vm& vm = s_.vms[e.vm];
      vm.id = e.vm, vm.slice = e.slice, vm.host = e.host, vm.gpus = e.gpus,
      vm.requested_ns = vm.changed_ns = now_;
      slice.vms.push_back(e.vm);
      s_.next_vm = std::max(s_.next_vm, number_of(e.vm) + 1);
      return {};
    });
  }
  Status operator()(const VmUp& e) {
    return with_vm(e.vm, [&](Vm& vm) {
      vm.token_sha256 = e.token_sha256;
      if (vm.state == VmState::kRequested) vm.state = VmState::kUp;
    });
  }
  Status operator()(const NodeValidated& e) {
    return with_vm(e.vm, [&](Vm& vm) {
      if (vm.state != VmState::kReady) meter_by(vm, vm.gpus);
      vm.state = VmState::kReady;
      vm.boot_id = e.boot_id, vm.address = e.address, vm.reason.clear();
    });
  }
  Status operator()(const NodeDown& e) {
    return with_vm(e.vm, [&](Vm& vm) {
      if (vm.state == VmState::kReady) meter_by(vm, -vm.gpus);
      if (vm.state == VmState::kUp || vm.state == VmState::kReady) count_lost(vm.host);
      vm.state = VmState::kDown;
      vm.reason = e.reason;
    });
  }
  Status operator()(const VmDeleted& e) {
    return with_vm(e.vm, [&](Vm& vm) {
      if (vm.state == VmState::kReady) meter_by(vm, -vm.gpus);
      s_.kept_vms.erase(vm.id);
      vm.state = VmState::kDeleted;
    });
  }
  Status operator()(const HostDrained& e) {
    s_.drained[e.host] = e.reason;
    return {};
  }
  Status operator()(const HostResumed& e) {
    if (!s_.drained.erase(e.host)) return refuse("host " + e.host + " is not drained");
    s_.lost_nodes.erase(e.host);  // whoever looked at it says that it is well
    return {};
  }

  Status operator()(const JobSubmitted& e) {
    if (s_.jobs.count(e.job)) return refuse("job " + e.job + " exists already");
    Job& job = s_.jobs[e.job];
    job.submitted = e;
    job.slice = e.slice;
    job.submitted_ns = now_;
    s_.next_job = std::max(s_.next_job, number_of(e.job) + 1);
    return {};
  }
  Status operator()(const AttemptStarted& e) {
    return with_job(e.job, [&](Job& job) -> Status {
      if (job.ended() || job.attempt_open || e.attempt != job.attempt + 1) {
        return refuse("job " + e.job + " cannot start attempt " + std::to_string(e.attempt));
      }
      if (!s_.slices.count(e.slice)) return refuse("slice " + e.slice + " is unknown");
      job.slice = e.slice, job.attempt = e.attempt, job.master_port = e.master_port;
      job.attempt_open = true, job.attempt_succeeded = false, job.attempt_started_ns = now_;
      job.state = e.attempt == 1 ? JobState::kStarting : JobState::kRestarting;
      if (job.started_ns == 0) job.started_ns = now_;
      job.preempted_until_ns = 0, job.preempted_by.clear();
      job.gpu_milli = job.submitted.gpus * 1000;
      detail::count_guest(s_, job, job.gpu_milli, now_);
      job.ranks.clear(), job.reserved.clear(), job.cause.clear();
      for (const RankPlace& place : e.ranks) job.ranks.push_back({place, false, 0, 0, {}});
      return {};
    });
  }
  Status operator()(const AttemptRunning& e) {
    return with_attempt(e.job, e.attempt, [&](Job& job) -> Status {
      job.state = JobState::kRunning;
      job.running_ns = now_;
      if (job.serves()) job.retries_used = 0;
      return {};
    });
  }
  Status operator()(const RankExited& e) {
    return with_attempt(e.job, e.attempt, [&](Job& job) -> Status {
      if (e.rank < 0 || e.rank >= static_cast<int64_t>(job.ranks.size())) {
        return refuse("job " + e.job + " has no rank " + std::to_string(e.rank));
      }
      Rank& rank = job.ranks[e.rank];
      rank.exited = true, rank.exit_code = e.exit_code, rank.signal = e.signal, rank.reason = e.reason;
      return {};
    });
  }
  Status operator()(const CheckpointSaved& e) {
    return with_job(e.job, [&](Job& job) -> Status {
      job.checkpoint_step = e.step, job.checkpoint_ns = now_;
      return {};
    });
  }
  Status operator()(const AttemptEnded& e) {
    return with_attempt(e.job, e.attempt, [&](Job& job) -> Status {
      close_attempt(job);
      job.attempt_succeeded = e.succeeded;
      if (!e.succeeded) job.state = JobState::kRestarting;
      job.reason = e.reason;
      job.lost_steps += e.lost_steps;
      if (e.counts) ++job.retries_used;
      return {};
    });
  }
  Status operator()(const JobCancelling& e) {
    return with_job(e.job, [&](Job& job) -> Status {
      if (job.ended()) return refuse("job " + e.job + " has ended");
      job.end_state = e.end_state;
      job.reason = e.reason;
      return {};
    });
  }
  Status operator()(const JobFinished& e) {
    return with_job(e.job, [&](Job& job) -> Status {
      if (job.ended()) return refuse("job " + e.job + " has ended");
      const std::pair<std::string_view, JobState> kEnds[] = {{"succeeded", JobState::kSucceeded},
                                                             {"failed", JobState::kFailed},
                                                             {"cancelled", JobState::kCancelled}};
      for (const auto& [name, state] : kEnds) {
        if (e.state != name) continue;
        if (job.attempt_open) close_attempt(job);
        job.state = state, job.reason = e.reason, job.result = e.result, job.ended_ns = now_;
        return {};
      }
      return refuse("job " + e.job + " cannot end as '" + e.state + "'");
    });
  }
  Status operator()(const AttemptReserved& e) {
    return with_attempt(e.job, e.attempt, [&](Job& job) -> Status {
      job.reserved = e.places;
      return {};
    });
  }
  Status operator()(const AttemptSized& e) {
    return with_attempt(e.job, e.attempt, [&](Job& job) -> Status {
      detail::count_guest(s_, job, e.gpu_milli - job.gpu_milli, now_);
      job.gpu_milli = e.gpu_milli;
      return {};
    });
  }
  Status operator()(const JobCause& e) {
    return with_job(e.job, [&](Job& job) -> Status {
      job.cause = e.cause;
      return {};
    });
  }

  Status operator()(const ModelRegistered& e) {
    s_.models[e.name].push_back(e);
    return {};
  }
  Status operator()(const DeploymentCreated& e) {
    const auto old = s_.deployments.find(e.name);
    if (old != s_.deployments.end() && (old->second.state == "starting" || old->second.state == "ready")) {
      return refuse("deployment " + e.name + " exists already");
    }
    s_.deployments[e.name] = Deployment{e, "starting", {}, {}, now_};
    return {};
  }
  Status operator()(const DeploymentReady& e) {
    return with_deployment(e.name,
                           [&](Deployment& d) { d.state = "ready", d.url = e.url, d.reason.clear(); });
  }
  Status operator()(const DeploymentUnready& e) {
    return with_deployment(e.name,
                           [&](Deployment& d) { d.state = "starting", d.url.clear(), d.reason = e.reason; });
  }
  Status operator()(const DeploymentStopped& e) {
    return with_deployment(e.name, [&](Deployment& d) {
      d.state = e.failed ? "failed" : "stopped";
      d.url.clear(), d.reason = e.reason;
    });
  }
  Status operator()(const UsageRecorded& e) {
    const auto journal = s_.journals.find(e.journal);
    int64_t last = journal == s_.journals.end() ? 0 : journal->second;
    for (const UsageRecord& record : e.records) {
      if (record.seq <= last)
        return refuse("journal " + e.journal + ": record " + std::to_string(record.seq) +
                      " was taken before");
      last = record.seq;
    }
    for (const UsageRecord& record : e.records) {
      TokenUsage& total = s_.tokens[{record.deployment, record.key_id}];
      ++total.requests;
      total.prompt_tokens += record.prompt_tokens;
      total.completion_tokens += record.completion_tokens;
      detail::count_tokens(s_, record, now_);
    }
    s_.journals[e.journal] = last;
    return {};
  }

 private:
  template <class F>
  Status with_slice(const std::string& id, std::initializer_list<SliceState> from, F change) {
    const auto slice = s_.slices.find(id);
    if (slice == s_.slices.end()) return refuse("slice " + id + " is unknown");
    if (std::find(from.begin(), from.end(), slice->second.state) == from.end()) {
      return refuse("slice " + id + " is " + std::string(name_of(slice->second.state)));
    }
    return change(slice->second);
  }
  Status move_slice(const std::string& id, std::initializer_list<SliceState> from, SliceState to,
                    const std::string& reason) {
    return with_slice(id, from, [&](Slice& slice) -> Status {
      slice.state = to;
      if (!reason.empty()) slice.reason = reason;
      if (!slice.live()) slice.ended_ns = now_;
      return {};
    });
  }
  template <class F>
  Status with_vm(const std::string& id, F change) {
    const auto vm = s_.vms.find(id);
    if (vm == s_.vms.end()) return refuse("VM " + id + " is unknown");
    if (vm->second.state == VmState::kDeleted) return refuse("VM " + id + " is deleted");
    const VmState before = vm->second.state;
    change(vm->second);
    if (vm->second.state != before) vm->second.changed_ns = now_;
    return {};
  }
  template <class F>
  Status with_job(const std::string& id, F change) {
    const auto job = s_.jobs.find(id);
    if (job == s_.jobs.end()) return refuse("job " + id + " is unknown");
    return change(job->second);
  }
  template <class F>
  Status with_attempt(const std::string& id, int64_t attempt, F change) {
    return with_job(id, [&](Job& job) -> Status {
      if (!job.attempt_open || job.attempt != attempt) {
        return refuse("job " + id + ": attempt " + std::to_string(attempt) + " is not open");
      }
      return change(job);
    });
  }
  template <class F>
  Status with_deployment(const std::string& name, F change) {
    const auto deployment = s_.deployments.find(name);
    if (deployment == s_.deployments.end()) return refuse("deployment " + name + " is unknown");
    change(deployment->second);
    return {};
  }

  /// Closes what was metered up to now and goes on with `gpus`.
  void meter(Slice& slice, int64_t gpus) { detail::meter(s_, slice, gpus, now_); }
  void meter_by(const Vm& vm, int64_t change) {
    const auto slice = s_.slices.find(vm.slice);
    if (slice == s_.slices.end() || slice->second.state != SliceState::kReady) return;
    if (!detail::is_paid(slice->second, vm)) return;
    meter(slice->second, slice->second.metered_gpus + change);
  }
  void count_lost(const std::string& host) {
    std::vector<int64_t>& times = s_.lost_nodes[host];
    times.push_back(now_);
    if (times.size() > kMaxLostNodes) times.erase(times.begin());
  }
  void close_attempt(Job& job) {
    job.cost_microusd = s_.cost_microusd(job, now_);
    job.attempt_open = false;
    detail::count_guest(s_, job, -job.gpu_milli, now_);
  }

  State& s_;
  int64_t now_;
};

}  // namespace

Status apply(State& state, const Entry& entry) {
  if (entry.seq != state.seq + 1)
    return refuse("event " + std::to_string(entry.seq) + " follows " + std::to_string(state.seq));
  if (entry.time_ns < state.time_ns)
    return refuse("event " + std::to_string(entry.seq) + " is older than the one before");
  TH_RETURN_IF_ERROR(std::visit(Applier(state, entry.time_ns), entry.event));
  state.seq = entry.seq;
  state.time_ns = entry.time_ns;
  return {};
}

}  // namespace th::ledger
