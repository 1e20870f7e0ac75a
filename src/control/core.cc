#include "control/core.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace th::control {
namespace {

constexpr int64_t kSuspectHostNs = 30 * kSecond;

template <class E>
std::string slice_of(const E& event, const ledger::State& state) {
  if constexpr (requires { event.slice; }) {
    return event.slice;
  } else if constexpr (requires { event.vm; }) {
    const auto vm = state.vms.find(event.vm);
    return vm == state.vms.end() ? std::string() : vm->second.slice;
  } else {
    return {};
  }
}

/// The hosts that the slice keeps others from until its end: its own, and those that still carry a VM of it.
std::optional<reserve::Claim> claim_of(const ledger::State& state, const ledger::Slice& slice,
                                       const fleet::Fleet& fleet) {
  std::map<reserve::HostIndex, reserve::GpuMask> hosts;
  auto add = [&](const std::string& id, int64_t gpus) {
    if (auto host = fleet.find_host(id)) hosts[*host] |= reserve::all_gpus(gpus);
  };
  if (slice.live()) {
    for (const ledger::Share& share : slice.terms.hosts) add(share.host, share.gpus);
    if (slice.resize) {
      for (const ledger::Share& host : slice.resize->asked.add) add(host.host, host.gpus);
    }
  }
  for (const std::string& id : slice.vms) {
    const ledger::Vm& vm = state.vms.at(id);
    if (vm.state != ledger::VmState::kDeleted) add(vm.host, vm.gpus);
  }
  if (hosts.empty()) return std::nullopt;
  reserve::Claim claim;
  claim.id = slice.terms.slice;
  claim.start_ns = slice.terms.start_ns;
  claim.end_ns = slice.terms.end_ns;
  for (const auto& [host, gpus] : hosts) claim.hosts.push_back({host, gpus});
  return claim;
}

}  // namespace

Core::Core(CoreParts parts) : parts_(std::move(parts)), snapshot_(parts_.fleet) {
  for (const auto& [id, slice] : state().slices) {
    tenants_.refresh(slice);
    if (auto own = claim_of(state(), slice, fleet())) active_slices_.insert(id), claim(*own);
  }
  // Only now, so that no claim of an overdue slice takes the place of another one's own.
  extend_overdue_claims();
  for (const auto& [name, reservation] : state().reservations) refresh_reservation(name);
  for (const auto& [id, job] : state().jobs) refresh_job(id);
  for (const auto& [host, reason] : state().drained) refresh_drain(host);
}

int64_t Core::now_ns() const { return std::max(parts_.env.unix_ns(), state().time_ns); }

std::string Core::job_key(const std::string& job) const {
  if (parts_.job_secret.empty()) return {};
  return job + "." + sha256_hex(fmt::format("{}\n{}\n{}", parts_.job_secret, job, parts_.job_secret));
}

std::string Core::job_of_key(std::string_view key) const {
  const std::string job(key.substr(0, key.find('.')));
  const auto found = state().jobs.find(job);
  const bool runs = found != state().jobs.end() && found->second.attempt_open;
  return runs && !parts_.job_secret.empty() && equal_secret(key, job_key(job)) ? job : std::string();
}

void Core::stage(ledger::Event event) {
  const ledger::Event kept = event;
  parts_.ledger.stage(std::move(event));
  std::visit(
      [this](const auto& e) {
        if (const std::string slice = slice_of(e, state()); !slice.empty()) refresh_slice(slice);
        if constexpr (requires { e.job; }) {
          if (!e.job.empty()) refresh_job(e.job);
        }
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, ledger::HostDrained> || std::is_same_v<E, ledger::HostResumed>) {
          refresh_drain(e.host);
        }
        if constexpr (requires { e.reservation; }) {
          if (!e.reservation.empty()) refresh_reservation(e.reservation);
        }
      },
      kept);
}

Status Core::commit() {
  TH_RETURN_IF_ERROR(parts_.ledger.commit());
  for (auto& action : std::exchange(actions_, {})) action();
  return {};
}

void Core::refresh_slice(const std::string& id) {
  const auto found = state().slices.find(id);
  if (found == state().slices.end()) return;
  tenants_.refresh(found->second);
  // Its hosts are the slice's for as long as that lives, and then the reservation's again.
  if (const std::string& name = found->second.owner.reservation; !name.empty()) refresh_reservation(name);
  if (auto old = claims_.find(id); old != claims_.end()) {
    snapshot_ = snapshot_.without_claim(old->second);
    claims_.erase(old);
  }
  const auto own = claim_of(state(), found->second, fleet());
  if (!own) {
    active_slices_.erase(id);
    if (const std::string& name = found->second.owner.reservation; !name.empty()) refresh_reservation(name);
    return;
  }
  active_slices_.insert(id);
  // Overdue: kept from others, but for one that reserved what comes after; that one waits (Slices::start).
  reserve::Claim longer = *own;
  longer.end_ns = now_ns() + kMinute;
  if (own->end_ns <= now_ns() && claim(longer)) return;
  const bool owned = !found->second.owner.account.empty();  // else what it was taken from is told next
  if (!claim(*own) && owned) log_error("slice {} overlaps with another one", id);
}

bool Core::claim(const reserve::Claim& claim) {
  auto next = snapshot_.with_claim(claim);
  if (!next) return false;
  snapshot_ = *std::move(next);
  claims_[claim.id] = claim;
  return true;
}

void Core::extend_overdue_claims() {
  std::vector<std::string> overdue;
  for (const auto& [id, claim] : claims_) {
    if (claim.end_ns <= now_ns()) overdue.push_back(id);
  }
  for (const std::string& id : overdue) refresh_slice(id);
}

void Core::refresh_job(const std::string& id) {
  const auto job = state().jobs.find(id);
  if (job != state().jobs.end() && !job->second.ended()) {
    active_jobs_.insert(id);
  } else {
    active_jobs_.erase(id);
  }
}

/// Less the hosts that slices inside of it have.
void Core::refresh_reservation(const std::string& name) {
  const std::string id = "reservation " + name;
  if (auto old = claims_.find(id); old != claims_.end()) {
    snapshot_ = snapshot_.without_claim(old->second);
    claims_.erase(old);
  }
  const auto found = state().reservations.find(name);
  if (found == state().reservations.end()) return;
  std::set<std::string> taken;
  for (const std::string& slice : active_slices_) {
    const ledger::Slice& of = state().slices.at(slice);
    if (of.owner.reservation != name) continue;
    for (const ledger::Share& share : of.terms.hosts) taken.insert(share.host);
  }
  reserve::Claim own{id, found->second.start_ns, found->second.end_ns, {}};
  for (const std::string& host : found->second.hosts) {
    const auto index = fleet().find_host(host);
    if (index && !taken.count(host))
      own.hosts.push_back({*index, reserve::all_gpus(fleet().host(*index).gpus)});
  }
  std::ranges::sort(own.hosts, {}, &reserve::HostGpus::host);
  if (!own.hosts.empty() && !claim(own)) log_error("reservation {} overlaps with a slice", name);
}

const reserve::Claim* Core::find_claim(const std::string& id) const {
  const auto found = claims_.find(id);
  return found == claims_.end() ? nullptr : &found->second;
}

std::vector<reserve::Reservation> Core::reservations() const {
  std::vector<reserve::Reservation> out;
  for (const auto& [name, created] : state().reservations) {
    const auto claim = claims_.find("reservation " + name);
    reserve::Claim own{"reservation " + name, created.start_ns, created.end_ns, {}};
    if (claim != claims_.end()) own = claim->second;
    out.push_back({name, std::move(own), created.accounts, created.users});
  }
  return out;
}

Result<ledger::Owner> Core::owner_for(const std::string& account, const std::string& qos,
                                      const std::string& partition) const {
  ledger::Owner owner = caller_;
  owner.account = account.empty() ? account_of(caller_) : account;
  owner.qos = qos.empty() ? qos_of(caller_) : qos;
  owner.partition = partition;
  auto none = [](const char* what, const std::string& name, const auto& all) {
    std::vector<std::string> names;
    for (const auto& item : all) names.push_back(item.name);
    return fail(Code::kNotFound, "there is no " + std::string(what) + " '" + name + "'" +
                                     did_you_mean(name, names) + "; there is " + join(names, ", "));
  };
  if (!policy().find_qos(owner.qos)) return none("QOS", owner.qos, policy().qos);
  if (!partition.empty() && !policy().find_partition(partition))
    return none("partition", partition, policy().partitions);
  const reserve::AccountSpec* at = policy().find_account(owner.account);
  if (!at) return none("account", owner.account, policy().accounts);
  if (caller_.account.empty()) return owner;  // of the operator: any
  for (; at; at = policy().find_account(at->parent)) {
    if (at->name == caller_.account) return owner;
  }
  return fail(
      Code::kPermissionDenied,
      "account '" + owner.account + "' is not yours: your key is of account '" + caller_.account + "'");
}

void Core::refresh_drain(const std::string& host) {
  const auto index = fleet().find_host(host);
  if (!index) return;
  const auto drained = state().drained.find(host);
  std::optional<std::string> reason;
  if (drained != state().drained.end()) reason = drained->second;
  snapshot_ = snapshot_.with_out_of_use(*index, std::move(reason));
}

void Core::suspect_host(const std::string& host) { suspects_[host] = monotonic_ns() + kSuspectHostNs; }

reserve::Snapshot Core::snapshot_without_suspects() const {
  reserve::Snapshot out = snapshot_;
  for (const auto& [host, until_ns] : suspects_) {
    if (until_ns <= monotonic_ns()) continue;
    if (auto index = fleet().find_host(host))
      out = out.with_out_of_use(*index, "it lost a node a moment ago");
  }
  return out;
}

reserve::Snapshot Core::snapshot_without_share(const std::string& slice, const std::string& host) const {
  reserve::Snapshot out = snapshot_without_suspects();
  const auto own = claims_.find(slice);
  const auto index = fleet().find_host(host);
  if (own == claims_.end() || !index) return out;
  out = out.without_claim(own->second);
  reserve::Claim rest = own->second;
  std::erase_if(rest.hosts, [&](const reserve::HostGpus& part) { return part.host == *index; });
  if (rest.hosts.empty()) return out;
  auto next = out.with_claim(rest);
  return next ? *std::move(next) : snapshot_without_suspects();
}

const ledger::Vm* live_vm(const ledger::State& state, const ledger::Slice& slice, const std::string& host) {
  for (auto id = slice.vms.rbegin(); id != slice.vms.rend(); ++id) {
    const ledger::Vm& vm = state.vms.at(*id);
    if (vm.host == host && vm.state != ledger::VmState::kDown && vm.state != ledger::VmState::kDeleted)
      return &vm;
  }
  return nullptr;
}

}  // namespace th::control
