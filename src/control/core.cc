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

/// Every GPU of `host` that a share of `gpus` means: whole hosts are leased, so the lowest ones.
reserve::GpuMask mask_of(int64_t gpus) { return gpus >= 32 ? ~0u : (1u << gpus) - 1; }

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
    if (auto host = fleet.find_host(id)) hosts[*host] |= mask_of(gpus);
  };
  if (slice.live()) {
    for (const ledger::Share& share : slice.terms.hosts) add(share.host, share.gpus);
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
    if (auto own = claim_of(state(), slice, fleet())) active_slices_.insert(id), claim(*own);
  }
  // Only now, so that no claim of an overdue slice takes the place of another one's own.
  extend_overdue_claims();
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
  if (auto old = claims_.find(id); old != claims_.end()) {
    snapshot_ = snapshot_.without_claim(old->second);
    claims_.erase(old);
  }
  const auto own = claim_of(state(), found->second, fleet());
  if (!own) {
    active_slices_.erase(id);
    return;
  }
  active_slices_.insert(id);
  // Overdue: kept from others, but for one that reserved what comes after; that one waits (Slices::start).
  reserve::Claim longer = *own;
  longer.end_ns = now_ns() + kMinute;
  if (own->end_ns <= now_ns() && claim(longer)) return;
  if (!claim(*own)) log_error("slice {} overlaps with another one", id);
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
