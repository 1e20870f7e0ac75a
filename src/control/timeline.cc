#include "control/timeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/units.h"

namespace th::control {
namespace {

constexpr size_t kMaxMoments = 1000;

/// "1 GPU", "2 GPUs".
std::string hosts_text(const std::vector<ledger::Share>& hosts) {
  std::vector<std::string> out;
  for (const ledger::Share& share : hosts)
    out.push_back(fmt::format("{} ({}, rack {})", share.host, counted(share.gpus, "GPU"), share.rack));
  return join(out, ", ");
}

std::string nodes_text(const std::vector<ledger::RankPlace>& ranks) {
  std::vector<std::string> out;
  for (const ledger::RankPlace& rank : ranks) {
    if (std::find(out.begin(), out.end(), rank.vm) == out.end()) out.push_back(rank.vm);
  }
  return join(out, ", ");
}

std::string tenant_words(const std::string& tenant) {
  return tenant.empty() ? "the platform" : "tenant " + tenant;
}

struct Describer {
  const ledger::State& state;

  using Pair = std::pair<std::string, std::string>;  // what, why
  Pair operator()(const ledger::FleetLoaded& e) { return {"fleet " + e.name + " loaded", ""}; }
  Pair operator()(const ledger::KeyAdded& e) { return {"key " + e.name + " added", ""}; }
  Pair operator()(const ledger::KeyRevoked&) { return {"key revoked", ""}; }
  Pair operator()(const ledger::SliceHeld& e) {
    return {fmt::format("slice {} held: {} of {} for {} at {}", e.name, counted(e.gpus, "GPU"), e.series,
                        format_duration(e.end_ns - e.start_ns), format_money(e.price_microusd)),
            e.placement + (e.hosts.empty() ? "" : "; " + hosts_text(e.hosts))};
  }
  Pair operator()(const ledger::SliceHostReplaced& e) {
    return {fmt::format("host {} takes the place of {}", e.host.host, e.lost), "the node on it was lost"};
  }
  Pair operator()(const ledger::SliceCommitted& e) { return {"slice committed", e.reason}; }
  Pair operator()(const ledger::SliceExpired& e) { return {"hold expired", e.reason}; }
  Pair operator()(const ledger::SliceReady&) {
    return {"slice ready: handed over", "every node is up and validated"};
  }
  Pair operator()(const ledger::SliceReleasing& e) { return {"slice is being released", e.reason}; }
  Pair operator()(const ledger::SliceReleased&) { return {"slice released", "its VMs are deleted"}; }
  Pair operator()(const ledger::SliceFailed& e) { return {"slice failed: all of it rolled back", e.reason}; }
  Pair operator()(const ledger::VmRequested& e) {
    return {fmt::format("node {} requested on host {}", e.vm, e.host), ""};
  }
  Pair operator()(const ledger::VmUp& e) { return {"node " + e.vm + " starts", ""}; }
  Pair operator()(const ledger::NodeValidated& e) {
    return {"node " + e.vm + " ready", "it passed its validation"};
  }
  Pair operator()(const ledger::NodeDown& e) { return {"node " + e.vm + " down", e.reason}; }
  Pair operator()(const ledger::VmBilled& e) {
    return {
        fmt::format("node {} billed by its cloud for {}", e.vm, format_duration(e.ended_ns - e.created_ns)),
        ""};
  }
  Pair operator()(const ledger::VmDeleted& e) { return {"node " + e.vm + " deleted", ""}; }
  Pair operator()(const ledger::HostDrained& e) { return {"host " + e.host + " drained", e.reason}; }
  Pair operator()(const ledger::HostResumed& e) { return {"host " + e.host + " back in use", ""}; }
  Pair operator()(const ledger::JobSubmitted& e) {
    return {fmt::format("{} submitted: {}", e.job, counted(e.gpus, "GPU")),
            e.slice.empty() ? "it gets a slice of its own" : ""};
  }
  Pair operator()(const ledger::AttemptStarted& e) {
    return {fmt::format("attempt {} starts: {} on {}", e.attempt, counted(std::ssize(e.ranks), "rank"),
                        nodes_text(e.ranks)),
            ""};
  }
  Pair operator()(const ledger::AttemptRunning& e) {
    return {fmt::format("attempt {} runs", e.attempt), "every rank is up"};
  }
  Pair operator()(const ledger::RankExited& e) {
    const std::string how = e.signal           ? fmt::format("ended by signal {}", e.signal)
                            : e.exit_code >= 0 ? fmt::format("exited with code {}", e.exit_code)
                                               : "lost";
    return {fmt::format("rank {} on node {} {}", e.rank, e.vm, how), e.reason};
  }
  Pair operator()(const ledger::CheckpointSaved& e) {
    return {fmt::format("checkpoint at step {}", e.step), ""};
  }
  Pair operator()(const ledger::AttemptEnded& e) {
    return {fmt::format("attempt {} {}", e.attempt,
                        e.succeeded ? "succeeded" : "failed; its other ranks are stopped"),
            e.reason};
  }
  Pair operator()(const ledger::JobCancelling& e) { return {"job is being stopped", e.reason}; }
  Pair operator()(const ledger::AttemptReserved& e) {
    return {fmt::format("attempt {} holds {} for its steps", e.attempt, nodes_text(e.places)), ""};
  }
  Pair operator()(const ledger::AttemptSized& e) {
    return {fmt::format("attempt {} takes {} GPUs", e.attempt, static_cast<double>(e.gpu_milli) / 1000), ""};
  }
  Pair operator()(const ledger::JobCause& e) { return {"cause: " + e.cause, ""}; }
  Pair operator()(const ledger::JobFinished& e) { return {"job " + e.state, e.reason}; }
  Pair operator()(const ledger::ModelRegistered& e) {
    return {fmt::format("model {} version {} registered", e.name, e.version), ""};
  }
  Pair operator()(const ledger::DeploymentCreated& e) {
    return {fmt::format("deployment {} of model {} created", e.name, e.model), ""};
  }
  Pair operator()(const ledger::DeploymentReady& e) {
    return {"deployment " + e.name + " ready at " + e.url, ""};
  }
  Pair operator()(const ledger::DeploymentUnready& e) {
    return {"deployment " + e.name + " has no replica", e.reason};
  }
  Pair operator()(const ledger::DeploymentStopped& e) {
    return {"deployment " + e.name + (e.failed ? " failed" : " stopped"), e.reason};
  }
  Pair operator()(const ledger::PolicyLoaded&) { return {"policy loaded", ""}; }
  Pair operator()(const ledger::KeyOwned& e) { return {"key of account " + e.account, ""}; }
  Pair operator()(const ledger::SliceOwned& e) {
    return {fmt::format("account {}, QOS {}{}", e.account, e.qos, e.spot ? ", spot" : ""), ""};
  }
  Pair operator()(const ledger::JobOwned& e) {
    return {fmt::format("account {}, QOS {}", e.account, e.qos), ""};
  }
  Pair operator()(const ledger::JobPreempted& e) {
    return {"preempted: its ranks were told to save their work", e.reason};
  }
  Pair operator()(const ledger::JobRequeued& e) { return {"back in the queue", e.reason}; }
  Pair operator()(const ledger::SliceResizing& e) {
    return {fmt::format("slice grows to {}: more hosts are being made ready ({})", counted(e.gpus, "GPU"),
                        e.add.size()),
            ""};
  }
  Pair operator()(const ledger::SliceResized& e) {
    return {"slice has " + counted(e.gpus, "GPU"),
            join(e.remove, ", ") + (e.remove.empty() ? "" : " given back")};
  }
  Pair operator()(const ledger::SliceResizeFailed& e) { return {"slice keeps its size", e.reason}; }
  Pair operator()(const ledger::ReservationCreated& e) {
    return {fmt::format("reservation {} of {}", e.reservation, counted(std::ssize(e.hosts), "host")),
            e.reason};
  }
  Pair operator()(const ledger::ReservationEnded& e) {
    return {"reservation " + e.reservation + " ended", e.reason};
  }
  Pair operator()(const ledger::SliceGrouped& e) {
    const int64_t groups = e.groups.empty() ? 0 : e.groups.back() + 1;
    return {fmt::format("its hosts are in {} placement groups", groups), "one group does not hold them all"};
  }
  Pair operator()(const ledger::PowerCapped& e) {
    return {fmt::format("site {} capped at {} W from {} to {}", e.site, e.watts, format_time(e.start_ns),
                        format_time(e.end_ns)),
            e.reason};
  }
  Pair operator()(const ledger::PowerUncapped& e) { return {"power cap " + e.cap + " lifted", e.reason}; }
  Pair operator()(const ledger::StackAdded& e) {
    return {"stack " + e.name + "@" + e.version + " added", ""};
  }
  Pair operator()(const ledger::DataSetAdded& e) {
    return {"data set " + e.name + "@" + e.version + " added", ""};
  }
  Pair operator()(const ledger::SliceRequested& e) {
    return {"stack " + e.stack + (e.zone.empty() ? "" : ", zone " + e.zone),
            e.attempt > 0 ? "earlier alternatives cannot be had" : ""};
  }
  Pair operator()(const ledger::SliceFault& e) { return {"failed: " + e.code, e.reason}; }
  Pair operator()(const ledger::VmKept& e) {
    return {"node " + e.vm + " stays for another slice", "warm pool"};
  }
  Pair operator()(const ledger::VmAdopted& e) {
    return {"node " + e.vm + " is taken over", "it was kept warm"};
  }
  Pair operator()(const ledger::TenantCreated& e) {
    return {fmt::format("{} {} created below {}", e.kind, e.tenant, tenant_words(e.parent)), ""};
  }
  Pair operator()(const ledger::TenantChanged& e) {
    const auto limit = [](int64_t value) {
      return value < 0 ? "no limit" : fmt::format("at most {}", value);
    };
    const std::string budget = e.budget_microusd < 0 ? "no limit" : format_money(e.budget_microusd);
    return {fmt::format("tenant {} changed: GPUs {}, budget {}, shares {}", e.tenant, limit(e.max_gpus),
                        budget, e.shares),
            ""};
  }
  Pair operator()(const ledger::TenantRemoved& e) { return {"tenant " + e.tenant + " removed", ""}; }
  Pair operator()(const ledger::UserAdded& e) { return {fmt::format("{} ({}) added", e.user, e.login), ""}; }
  Pair operator()(const ledger::UserRemoved& e) { return {e.user + " removed", ""}; }
  Pair operator()(const ledger::RoleGranted& e) {
    return {
        fmt::format("{} is {} of {}", e.user, e.role.empty() ? "nothing" : e.role, tenant_words(e.tenant)),
        ""};
  }
  Pair operator()(const ledger::KeyGranted& e) {
    return {
        fmt::format("{} is {} of {}, for {}", e.key, e.role, tenant_words(e.tenant), join(e.scopes, ", ")),
        ""};
  }
  Pair operator()(const ledger::KeyUsed& e) { return {e.key + " used", ""}; }
  Pair operator()(const ledger::InvitationMade& e) {
    return {fmt::format("{} made: {} of {}", e.invitation, e.role, tenant_words(e.tenant)), ""};
  }
  Pair operator()(const ledger::InvitationTaken& e) {
    return {fmt::format("{} taken by {}", e.invitation, e.user), ""};
  }
  Pair operator()(const ledger::InvitationRevoked& e) { return {e.invitation + " revoked", ""}; }
  Pair operator()(const ledger::ApplicationMade& e) {
    return {fmt::format("{} of {}", e.application, e.applicant), ""};
  }
  Pair operator()(const ledger::ApplicationReviewed& e) {
    return {fmt::format("{} {}", e.application, e.accepted ? "accepted" : "declined"), e.reason};
  }
  Pair operator()(const ledger::PasswordSet& e) {
    return {e.user + (e.hash.empty() ? " has no password any more" : " has a new password"), ""};
  }
  Pair operator()(const ledger::PasswordResetMade& e) {
    return {"a code for a new password of " + e.user + " made", ""};
  }
  Pair operator()(const ledger::PasskeyAdded& e) {
    return {fmt::format("{} has passkey '{}'", e.user, e.name), ""};
  }
  Pair operator()(const ledger::PasskeyUsed&) { return {"passkey used", ""}; }
  Pair operator()(const ledger::PasskeyRemoved&) { return {"passkey removed", ""}; }
  Pair operator()(const ledger::SubjectLinked& e) { return {e.user + " known to " + e.issuer, ""}; }
  Pair operator()(const ledger::UsageRecorded& e) {
    return {fmt::format("{} requests metered", e.records.size()), ""};
  }
};

}  // namespace

Moment describe(const ledger::Entry& entry, const ledger::State& state) {
  auto [what, why] = std::visit(Describer{state}, entry.event);
  return {entry.seq, entry.time_ns, std::move(what), std::move(why)};
}

void Timeline::put(const std::string& subject, const Moment& moment) {
  auto& list = moments_[subject];
  if (!list.empty() && list.back().seq == moment.seq) return;
  list.push_back(moment);
  if (list.size() > kMaxMoments) list.erase(list.begin(), list.begin() + kMaxMoments / 4);
}

void Timeline::add(const ledger::Entry& entry, const ledger::State& state) {
  if (std::holds_alternative<ledger::KeyAdded>(entry.event)) return;  // its name may be a job's as well
  const Moment moment = describe(entry, state);
  if (const auto* held = std::get_if<ledger::SliceHeld>(&entry.event); held && held->implicit) {
    job_of_slice_[held->slice] = held->name;
  }
  if (const auto* started = std::get_if<ledger::AttemptStarted>(&entry.event)) {
    for (const auto& rank : started->ranks) jobs_on_vm_[rank.vm].insert(started->job);
  }
  for (const std::string& subject : ledger::subjects_of(entry.event)) {
    put(subject, moment);
    const auto vm = state.vms.find(subject);
    if (vm != state.vms.end()) put(vm->second.slice, moment);
    const auto job = job_of_slice_.find(vm == state.vms.end() ? subject : vm->second.slice);
    if (job != job_of_slice_.end()) put(job->second, moment);
  }
  if (const auto* down = std::get_if<ledger::NodeDown>(&entry.event)) {
    for (const std::string& job : jobs_on_vm_[down->vm]) put(job, moment);
    jobs_on_vm_.erase(down->vm);
  }
  if (const auto* finished = std::get_if<ledger::JobFinished>(&entry.event)) {
    for (auto& [vm, jobs] : jobs_on_vm_) jobs.erase(finished->job);
    std::erase_if(jobs_on_vm_, [](const auto& item) { return item.second.empty(); });
  }
}

const std::vector<Moment>& Timeline::of(const std::string& subject) const {
  static const std::vector<Moment> kNone;
  const auto found = moments_.find(subject);
  return found == moments_.end() ? kNone : found->second;
}

}  // namespace th::control
