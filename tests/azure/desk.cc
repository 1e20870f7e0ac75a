#include "desk.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/units.h"

namespace th::azure_emulator {
namespace {

using cloud::VmPhase;
constexpr int64_t kCreateNs = 20 * kMinute, kCallNs = 15 * kMinute;

}  // namespace

cloud::AzureProviderOptions options_for(const Emulator& emulator) {
  const auto& account = emulator.account();
  cloud::AzureProviderOptions options;
  options.subscription = account.subscription, options.resource_group = account.resource_group;
  options.region = account.region, options.tenant = account.tenant, options.client_id = account.client_id;
  options.client_secret = account.client_secret;
  options.subnet =
      "/subscriptions/sub-1/resourceGroups/rg-1/providers/Microsoft.Network/virtualNetworks/v/subnets/s";
  options.image = "canonical:ubuntu-hpc:2204:latest", options.ssh_public_key = "ssh-ed25519 AAAA";
  options.controller_url = "https://controller.invalid", options.node_secret = std::string(64, 'n');
  options.arm_url = options.login_url = options.prices_url = options.metadata_url = emulator.base_url;
  return options;
}

Desk::Desk(Emulator& cloud, Prng& prng, Plants plants) : cloud_(cloud), prng_(prng), plants_(plants) {
  restart();
}

void Desk::restart() {
  crash_in_ = 0;
  cloud::AzureWorld world;
  world.fetch = [this](const http::Call& call) {
    if (crash_in_ > 0 && --crash_in_ == 0) {
      if (prng_.below(2)) (void)cloud_.carry(call);
      throw Crash{};
    }
    return cloud_.carry(call);
  };
  world.unix_ns = [this] { return cloud_.now_ns(); };
  world.wait = [this](int64_t ns) { cloud_.advance(ns); };
  provider_ = cloud::make_azure_provider(options_for(cloud_), world).value();
}

size_t Desk::asked(const std::string& token) const {
  const auto lease = leases_.find(token);
  return lease == leases_.end() || lease->second.forgotten ? 0 : lease->second.vms.size();
}

void Desk::acquire(size_t num_vms, bool spot) {
  const std::string token = fmt::format("lease-{}", next_++);
  Lease lease;
  lease.spot = spot;
  for (size_t i = 0; i < num_vms; ++i) lease.vms.push_back(fmt::format("{}-{}", token, i));
  leases_[token] = lease;
  create(token);
}

void Desk::create(const std::string& token) {
  Lease& lease = leases_.at(token);
  cloud::CreateVms request{token, {}};
  request.spot = lease.spot;
  for (const std::string& vm : lease.vms) {
    cloud::VmSpec spec;
    spec.vm = vm, spec.host = "host-of-" + vm, spec.series = "ND_H100_v5";
    request.vms.push_back(spec);
  }
  const auto made = provider_->create(request, kCreateNs);
  if (made) {
    const bool whole = std::ranges::none_of(*made, [](const auto& vm) { return vm.phase == VmPhase::kDead; });
    lease.state = whole ? LeaseState::kReady : LeaseState::kEnding;
    return;
  }
  const bool open = made.error().code == Code::kDeadlineExceeded || made.error().code == Code::kUnavailable;
  if (!open) lease.state = LeaseState::kEnding;
}

void Desk::release() {
  std::vector<std::string> ready;
  for (const auto& [token, lease] : leases_) {
    if (lease.state == LeaseState::kReady) ready.push_back(token);
  }
  if (ready.empty()) return;
  const std::string& token = ready[prng_.below(ready.size())];
  leases_[token].state = LeaseState::kEnding;
  for (const std::string& vm : leases_[token].vms) end(token, vm);
}

bool Desk::end(const std::string& token, const std::string& vm) {
  const auto state = provider_->stop(vm, kCallNs);
  if (!state) return state.error().code == Code::kNotFound;
  if (state->created_ns > 0 && !plants_.account) accounts_[{token, vm, state->created_ns}] = state->ended_ns;
  return provider_->remove(vm, kCallNs).has_value();
}

void Desk::look_at_events() {
  const auto notices = provider_->events(kCallNs);
  if (!notices) return;
  for (const cloud::Notice& notice : *notices) (void)provider_->acknowledge(notice.id, kCallNs);
}

void Desk::reserve() {
  const std::string token = fmt::format("block-{}", next_++);
  blocks_[token] = "";
  const int64_t day_ns = cloud_.now_ns() / kDay * kDay;
  const auto name =
      provider_->reserve({token, "ND_H100_v5", 4, "1", day_ns + kDay, day_ns + 8 * kDay}, kCallNs);
  if (name) blocks_[token] = *name;
}

/// Blocks whose answer did not come are given back.
bool Desk::reconcile_blocks() {
  const auto there = provider_->list_reservations(kCallNs);
  if (!there) return false;
  bool quiet = true;
  for (const std::string& name : *there) {
    const bool kept = std::ranges::any_of(blocks_, [&](const auto& block) { return block.second == name; });
    if (!kept) quiet = false, (void)provider_->cancel_reservation(name, kCallNs);
  }
  return quiet;
}

bool Desk::reconcile() {
  const auto there = provider_->list(kCallNs);
  if (!there) return false;
  bool quiet = reconcile_blocks();
  std::map<std::string, std::set<std::string>> alive, listed;  // VMs by token
  for (const cloud::VmState& vm : *there) {
    const auto lease = leases_.find(vm.client_token);
    const bool wanted =
        lease != leases_.end() && std::ranges::count(lease->second.vms, vm.vm) > 0 &&
        (lease->second.state == LeaseState::kWanted || lease->second.state == LeaseState::kReady);
    listed[vm.client_token].insert(vm.vm);
    if (vm.phase != VmPhase::kDead) alive[vm.client_token].insert(vm.vm);
    if (!wanted) quiet = false, (void)end(vm.client_token, vm.vm);
  }
  std::vector<std::string> again;
  for (auto& [token, lease] : leases_) {
    if (lease.state == LeaseState::kEnding && listed[token].empty()) lease.state = LeaseState::kDone;
    if (lease.state == LeaseState::kReady && !lease.forgotten && alive[token].size() < lease.vms.size() &&
        !plants_.evictions)
      lease.state = LeaseState::kEnding, quiet = false;
    if (lease.state == LeaseState::kWanted) again.push_back(token);
  }
  for (const std::string& token : again) {
    quiet = false;
    if (plants_.token) {
      const Lease lease = leases_[token];
      leases_[token].state = LeaseState::kReady, leases_[token].forgotten = true;
      acquire(lease.vms.size(), lease.spot);
    } else if (prng_.below(4) == 0) {
      leases_[token].state = LeaseState::kEnding;
    } else {
      create(token);
    }
  }
  return quiet;
}

void Desk::end_all() {
  for (auto& [token, lease] : leases_) {
    if (lease.state != LeaseState::kDone) lease.state = LeaseState::kEnding;
  }
  blocks_.clear();
}

}  // namespace th::azure_emulator
