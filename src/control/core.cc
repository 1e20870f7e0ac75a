#include "control/core.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/live_vms.h"
#include "control/visible.h"

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

std::string reservation_id(const std::string& name) { return "reservation " + name; }

bool share_a_host(const reserve::Claim& a, const reserve::Claim& b) {
  return std::ranges::any_of(a.hosts, [&](const reserve::HostGpus& part) {
    return std::ranges::binary_search(b.hosts, part.host, {}, &reserve::HostGpus::host);
  });
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

Core::Core(CoreParts parts) : parts_(std::move(parts)), snapshot_(parts_.fleet), capped_(snapshot_) {
  for (const std::string& tenant : state().tenant_order) set_account(state().tenants.at(tenant).created);
  for (const auto& [id, slice] : state().slices) {
    tenants_.refresh(slice);
    if (auto own = claim_of(state(), slice, fleet())) active_slices_.insert(id), claim(*own);
  }
  for (const auto& [name, reservation] : state().reservations) refresh_reservation(name);
  // Only now, so that no claim of an overdue slice takes the place of another one's own.
  extend_overdue_claims();
  for (const auto& [id, job] : state().jobs) refresh_job(id);
  for (const auto& [host, reason] : state().drained) refresh_drain(host);
  refresh_lemons();
  set(snapshot_);
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
        if (const std::string slice = slice_of(e, state()); !slice.empty()) {
          changed_[slice] = state().seq;
          bool keeps_claim = false;
          if constexpr (requires { e.vm; }) keeps_claim = is_claimed(slice, e.vm);
          if (!keeps_claim) refresh_slice(slice);
        }
        if constexpr (requires { e.job; }) {
          if (!e.job.empty()) refresh_job(e.job);
        }
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, ledger::SliceHeld>) {
          if (e.implicit) refresh_job(e.name);
        }
        if constexpr (std::is_same_v<E, ledger::HostDrained> || std::is_same_v<E, ledger::HostResumed>) {
          refresh_drain(e.host);
        }
        if constexpr (requires { e.cap; }) set(snapshot_);
        if constexpr (std::is_same_v<E, ledger::TenantCreated> || std::is_same_v<E, ledger::TenantChanged>) {
          set_account(state().tenants.at(e.tenant).created);
        }
        if constexpr (requires { e.reservation; }) {
          if (!e.reservation.empty()) refresh_reservation(e.reservation);
        }
      },
      kept);
}

/// What policy.yaml says of the name holds before what was made by API.
void Core::set_account(const ledger::TenantCreated& tenant) {
  if (is_of_policy(tenant.tenant)) return;
  auto& accounts = parts_.policy.accounts;
  auto account = std::ranges::find(accounts, tenant.tenant, &reserve::AccountSpec::name);
  if (account == accounts.end()) {
    const bool has_parent = policy().find_account(tenant.parent) != nullptr;
    account = accounts.emplace(accounts.end());
    account->name = tenant.tenant;
    if (has_parent) account->parent = tenant.parent;
  }
  const auto limit = [](int64_t value) { return value < 0 ? std::nullopt : std::optional(value); };
  account->max_gpus = limit(tenant.max_gpus), account->budget_microusd = limit(tenant.budget_microusd);
  account->shares = tenant.shares;
}

bool Core::is_of_policy(std::string_view account) const {
  const auto given = std::span(parts_.policy.accounts).first(policy_accounts_);
  return std::ranges::find(given, account, &reserve::AccountSpec::name) != given.end();
}

Status Core::commit() {
  TH_RETURN_IF_ERROR(parts_.ledger.commit());
  for (auto& action : std::exchange(actions_, {})) action();
  return {};
}

/// Whether the VM is on a host that its slice claims for as long as it lives, whatever becomes of the VM: a
/// large gang makes thousands of events about its VMs, and each claim costs the whole gang.
bool Core::is_claimed(const std::string& slice, const std::string& vm) const {
  const auto found = state().slices.find(slice);
  const auto its = state().vms.find(vm);
  if (found == state().slices.end() || its == state().vms.end() || !found->second.live()) return false;
  const auto claim = claims_.find(slice);
  const auto host = fleet().find_host(its->second.host);
  if (claim == claims_.end() || !host) return false;
  const bool claimed = std::ranges::binary_search(claim->second.hosts, *host, {}, &reserve::HostGpus::host);
  return claimed && std::ranges::find(found->second.terms.hosts, its->second.host, &ledger::Share::host) !=
                        found->second.terms.hosts.end();
}

void Core::refresh_slice(const std::string& id) {
  const auto found = state().slices.find(id);
  if (found == state().slices.end()) return;
  const ledger::Slice& slice = found->second;
  tenants_.refresh(slice);
  const auto own = claim_of(state(), slice, fleet());
  const auto old = claims_.find(id);
  std::vector<std::string> beside;
  for (const auto& [name, of] : state().reservations) {
    const reserve::Claim& all = claims_[reservation_id(name)];
    if ((own && share_a_host(*own, all)) || (old != claims_.end() && share_a_host(old->second, all)))
      beside.push_back(name);
  }
  for (const std::string& name : beside) set(snapshot_.without_claim(claims_[reservation_id(name)]));
  if (old != claims_.end()) {
    set(snapshot_.without_claim(old->second));
    claims_.erase(old);
  }
  if (own) {
    active_slices_.insert(id);
    claim_for(slice, *own);
  } else {
    active_slices_.erase(id);
  }
  for (const std::string& name : beside) claim_rest(name);
}

void Core::claim_for(const ledger::Slice& slice, const reserve::Claim& own) {
  // Overdue: kept from others, but for one that leased what comes after; that one waits (Slices::start).
  reserve::Claim longer = own;
  longer.end_ns = now_ns() + kMinute;
  if (own.end_ns <= now_ns()) {
    if (claim(longer)) return;
    std::erase_if(longer.hosts, [&](const reserve::HostGpus& part) {
      return !snapshot_.with_claim({longer.id, longer.start_ns, longer.end_ns, {part}});
    });
    if (!longer.hosts.empty() && claim(longer)) return;
  }
  if (!claim(own)) log_error("slice {} overlaps with another one", slice.terms.slice);
}

bool Core::claim(const reserve::Claim& claim) {
  auto next = snapshot_.with_claim(claim);
  if (!next) return false;
  set(*std::move(next));
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
  active_jobs_.erase(id), queued_jobs_.erase(id);
  const auto found = state().jobs.find(id);
  if (found == state().jobs.end() || found->second.ended()) return;
  const ledger::Job& job = found->second;
  const bool queued = job.slice.empty() && !job.cancelling() && job.submitted.kind != "step";
  (queued ? queued_jobs_ : active_jobs_)[id] = &job;
}

void Core::refresh_reservation(const std::string& name) {
  const std::string id = reservation_id(name);
  if (auto old = claims_.find(id); old != claims_.end()) {
    set(snapshot_.without_claim(old->second));
    claims_.erase(old);
  }
  const auto found = state().reservations.find(name);
  if (found == state().reservations.end()) return;
  reserve::Claim own{id, found->second.start_ns, found->second.end_ns, {}};
  for (const std::string& host : found->second.hosts) {
    if (const auto index = fleet().find_host(host))
      own.hosts.push_back({*index, reserve::all_gpus(fleet().host(*index).gpus)});
  }
  std::ranges::sort(own.hosts, {}, &reserve::HostGpus::host);
  claims_[id] = std::move(own);
  claim_rest(name);
}

void Core::claim_rest(const std::string& name) {
  for (const reserve::Claim& rest : reservation(state().reservations.at(name)).rest()) {
    auto next = snapshot_.with_claim(rest);
    if (!next) log_error("reservation {} overlaps with a slice: {}", name, next.error().message);
    if (next) set(*std::move(next));
  }
}

const reserve::Claim* Core::find_claim(const std::string& id) const {
  const auto found = claims_.find(id);
  return found == claims_.end() ? nullptr : &found->second;
}

/// Its hosts are a slice's for as long as that lives, and then the reservation's again.
reserve::Reservation Core::reservation(const ledger::ReservationCreated& created) const {
  reserve::Reservation out{created.reservation, claims_.at(reservation_id(created.reservation)),
                           created.accounts, created.users};
  for (const std::string& id : active_slices_) {
    const ledger::Slice& slice = state().slices.at(id);
    const auto own = claims_.find(id);
    if (own == claims_.end() || !share_a_host(own->second, out.claim)) continue;
    const bool overdue = own->second.end_ns > slice.terms.end_ns;
    const bool told_next = slice.owner.account.empty();  // what a slice was taken from
    if (slice.owner.reservation == out.name || overdue || told_next) out.inside.push_back(own->second);
  }
  return out;
}

std::vector<reserve::Reservation> Core::reservations() const {
  std::vector<reserve::Reservation> out;
  for (const auto& [name, created] : state().reservations) out.push_back(reservation(created));
  return out;
}

Result<ledger::Owner> Core::owner_for(const std::string& account, const std::string& qos,
                                      const std::string& partition) const {
  ledger::Owner owner = caller();
  owner.account = account.empty() ? account_of(caller()) : account;
  owner.qos = qos.empty() ? qos_of(caller()) : qos;
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
  const auto made = state().tenants.find(owner.account);
  if (made != state().tenants.end() && made->second.removed)
    return fail(Code::kFailedPrecondition, "account '" + owner.account + "' is removed: it gets nothing new");
  const bool visible = is_within(policy(), owner.account, caller().account);
  if (visible && policy().find_account(owner.account)) return owner;
  const std::vector<std::string> names = accounts_of(*this);  // another tenant's does not exist either
  return fail(Code::kNotFound, "there is no account '" + owner.account + "'" +
                                   did_you_mean(owner.account, names) + "; there is " + join(names, ", "));
}

void Core::refresh_drain(const std::string& host) {
  const auto index = fleet().find_host(host);
  if (!index) return;
  const auto drained = state().drained.find(host);
  std::optional<std::string> reason;
  if (drained != state().drained.end()) reason = drained->second;
  set(snapshot_.with_out_of_use(*index, std::move(reason)));
}

void Core::set(reserve::Snapshot next) {
  snapshot_ = capped_ = std::move(next);
  for (const auto& [name, cap] : state().power_caps) {
    const auto site = std::ranges::find(fleet().sites(), cap.site, &fleet::Site::id);
    if (site == fleet().sites().end()) continue;  // of a fleet file that has changed
    capped_ = capped_.with_power_cap(static_cast<fleet::SiteIndex>(site - fleet().sites().begin()), cap.watts,
                                     cap.start_ns, cap.end_ns);
  }
}

void Core::refresh_lemons() {
  const int64_t since_ns = now_ns() - policy().lemon_within_ns;
  for (const auto& [host, times] : state().lost_nodes) {
    const auto index = fleet().find_host(host);
    if (!index) continue;
    const auto recent = std::ranges::count_if(times, [&](int64_t time_ns) { return time_ns > since_ns; });
    set_lemon(*index, recent >= policy().lemon_losses);
  }
  // A host that was resumed is forgotten.
  const std::set<reserve::HostIndex> lemons = lemons_;
  for (const reserve::HostIndex host : lemons) {
    if (!state().lost_nodes.count(fleet().host(host).id)) set_lemon(host, false);
  }
}

void Core::set_lemon(reserve::HostIndex host, bool is_lemon) {
  if (is_lemon == lemons_.contains(host)) return;
  if (is_lemon) {
    lemons_.insert(host);
    log_warn("host {} lost {} nodes or more within {}: it is placed on only where nothing else fits",
             fleet().host(host).id, policy().lemon_losses, format_duration(policy().lemon_within_ns));
  } else {
    lemons_.erase(host);
  }
  set(snapshot_.with_lemon(host, is_lemon));
}

void Core::suspect_host(const std::string& host) { suspects_[host] = monotonic_ns() + kSuspectHostNs; }

reserve::Snapshot Core::snapshot_without_suspects() const {
  reserve::Snapshot out = capped_;
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

int64_t Core::changed(const std::string& slice) const {
  const auto found = changed_.find(slice);
  return found == changed_.end() ? 0 : found->second;
}

std::map<std::string_view, const ledger::Vm*> live_vms(const ledger::State& state,
                                                       const ledger::Slice& slice) {
  std::map<std::string_view, const ledger::Vm*> out;
  for (const std::string& id : slice.vms) {
    const ledger::Vm& vm = state.vms.at(id);
    if (vm.state != ledger::VmState::kDown && vm.state != ledger::VmState::kDeleted) out[vm.host] = &vm;
  }
  return out;
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
