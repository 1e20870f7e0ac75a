#include "control/slices.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/end_vm.h"
#include "control/stacks.h"
#include "control/visible.h"

namespace th::control {
namespace {

using ledger::Share;
using ledger::Slice;
using ledger::SliceState;
using ledger::Vm;
using ledger::VmState;

bool has_host(const std::vector<Share>& shares, const std::string& host) {
  return std::ranges::find(shares, host, &Share::host) != shares.end();
}

bool is_added(const Slice& slice, const std::string& host) {
  return slice.resize && has_host(slice.resize->asked.add, host);
}

}  // namespace

std::vector<Share> shares_of(const reserve::Plan& plan, const fleet::Fleet& fleet) {
  std::vector<Share> out;
  for (const reserve::HostGpus& part : plan.hosts) {
    const fleet::Host& host = fleet.host(part.host);
    const fleet::Rack& rack = fleet.rack(host.rack);
    const std::string& leaf = fleet.switches()[static_cast<size_t>(rack.leaf_switch)].id;
    out.push_back({host.id, rack.id, leaf, std::popcount(part.gpus)});
  }
  return out;
}

Slices::Slices(Core& core, NodeChecks& checks)
    : core_(core), checks_(checks), warm_(core), since_ns_(core.now_ns()) {
  checks_.on_bad = [this](const std::string& vm, const std::string& reason) { node_down(vm, reason); };
}

std::string Slices::lease_for_job(const std::string& job, const std::string& series, const std::string& stack,
                                  const reserve::Plan& plan, const ledger::Owner& owner) {
  const std::string id = fmt::format("slice-{}", core_.state().next_slice);
  hold_plan(id, job, series, true, plan, owner);
  if (!stack.empty()) core_.stage(ledger::SliceRequested{id, stack, {}, {}, 0, 0});
  core_.stage(ledger::SliceCommitted{id, {}});
  return id;
}

void Slices::hold_plan(const std::string& id, const std::string& name, const std::string& series,
                       bool implicit, const reserve::Plan& plan, const ledger::Owner& owner) {
  ledger::SliceHeld held;
  held.slice = id, held.name = name, held.series = series, held.placement = plan.explanation;
  held.implicit = implicit, held.gpus = plan.gpus;
  held.start_ns = plan.start_ns, held.end_ns = plan.end_ns;
  held.microusd_per_gpu_hour = plan.microusd_per_gpu_hour, held.price_microusd = plan.price_microusd;
  held.hold_expires_ns = core_.now_ns() + core_.policy().hold_ns;
  held.hosts = shares_of(plan, core_.fleet());
  core_.stage(std::move(held));
  if (plan.groups.size() > 1) {
    ledger::SliceGrouped grouped{id, {}};
    for (size_t group = 0; group < plan.groups.size(); ++group)
      grouped.groups.insert(grouped.groups.end(), static_cast<size_t>(plan.groups[group]),
                            static_cast<int64_t>(group));
    core_.stage(std::move(grouped));
  }
  core_.stage(ledger::SliceOwned{id, owner.account, owner.user, owner.qos, owner.reservation, owner.spot});
}

Status Slices::commit(const std::string& name) {
  const Slice* slice = find_slice(core_, name);
  if (!slice)
    return fail(Code::kNotFound, "slice '" + name + "' does not exist; th slice list shows those that do");
  if (slice->state == SliceState::kStarting || slice->state == SliceState::kReady) return {};
  if (slice->state != SliceState::kHeld || slice->terms.hold_expires_ns <= core_.now_ns()) {
    return fail(
        Code::kFailedPrecondition,
        fmt::format("slice '{}' is {}: only a slice that is held can be committed; create it again", name,
                    slice->state == SliceState::kHeld ? "expired" : ledger::name_of(slice->state)));
  }
  core_.stage(ledger::SliceCommitted{slice->terms.slice, {}});
  return {};
}

Status Slices::release(const std::string& name, const std::string& reason) {
  const Slice* slice = find_slice(core_, name);
  if (!slice)
    return fail(Code::kNotFound, "slice '" + name + "' does not exist; th slice list shows those that do");
  if (!slice->live() || slice->state == SliceState::kReleasing) return {};
  core_.stage(ledger::SliceReleasing{slice->terms.slice, reason});
  return {};
}

void Slices::step() {
  end_what_is_over();
  const auto active = core_.active_slices();
  for (const std::string& id : active) step_slice(core_.state().slices.at(id));
  warm_.step();
}

void Slices::step_slice(const Slice& slice) {
  const std::string& id = slice.terms.slice;
  const int64_t now_ns = core_.now_ns();
  if (slice.state == SliceState::kHeld && now_ns >= slice.terms.hold_expires_ns) {
    core_.stage(ledger::SliceExpired{id, "the hold was not committed in time"});
  } else if (slice.state == SliceState::kStarting || slice.state == SliceState::kReady) {
    if (is_at_rest(slice)) return;
    if (now_ns >= slice.terms.end_ns) {
      core_.stage(ledger::SliceReleasing{id, "its time is over"});
    } else if (slice.state == SliceState::kStarting) {
      start(slice);
    } else if (!closing_) {
      repair(slice);
      if (slice.resize) advance_resize(slice);
      if (slice.requested.idle_ns > 0) end_when_idle(slice);
    }
  }
  if (slice.state == SliceState::kReleasing) finish_release(slice);
  create_requested(slice);
  delete_unwanted(slice);
}

/// Nothing is to be done for a slice whose nodes are all ready: a large fleet has thousands of them, and each
/// step would look at all.
bool Slices::is_at_rest(const Slice& slice) {
  if (slice.state != SliceState::kReady || slice.resize || slice.requested.idle_ns > 0 ||
      core_.now_ns() >= slice.terms.end_ns)
    return false;
  const std::string& id = slice.terms.slice;
  const int64_t changed = core_.changed(id);
  const auto known = at_rest_.find(id);
  if (known != at_rest_.end() && known->second == changed) return true;
  size_t ready = 0, others = 0;
  for (const std::string& name : slice.vms) {
    const VmState state = core_.state().vms.at(name).state;
    ready += state == VmState::kReady ? 1 : 0;
    others += state != VmState::kReady && state != VmState::kDeleted ? 1 : 0;
  }
  // Asked at the step after that which found all ready, so that whatever that one had to do was done.
  if (ready == slice.terms.hosts.size() && others == 0 && repair_notes_.count(id) == 0)
    at_rest_[id] = changed;
  return false;
}

void Slices::start(const Slice& slice) {
  if (core_.now_ns() < slice.terms.start_ns) return;
  if (slice.vms.empty()) {
    if (!warm_.make_room(slice, slice.terms.hosts) || !hosts_are_given_back(slice)) return;
    if (!power_is_given_back(slice)) return warm_.end_all();
    const std::vector<Share> hosts = slice.terms.hosts;
    for (const Share& share : hosts) request_vm(slice, share);
    return;
  }
  bool all_ready = true;
  const auto there = live_vms(core_.state(), slice);
  for (const Share& share : slice.terms.hosts) {
    const auto found = there.find(share.host);
    const Vm* vm = found == there.end() ? nullptr : found->second;
    const bool late = vm && is_late(*vm);
    if (late)
      node_down(vm->id, "it did not come up within " + format_duration(core_.provider().patience().boot_ns));
    if (!vm || late) return replace_at_start(slice, Share(share));
    all_ready = all_ready && vm->state == VmState::kReady;
  }
  if (all_ready) check_fabric(slice);
}

void Slices::check_fabric(const Slice& slice) {
  const std::string id = slice.terms.slice;
  const NodeChecks::Fabric fabric = checks_.fabric(slice);
  if (fabric.state == NodeChecks::Fabric::State::kUnderWay) return;
  if (fabric.state == NodeChecks::Fabric::State::kPassed) return core_.stage(ledger::SliceReady{id, {}});
  for (const std::string& vm : fabric.slow_vms) node_down(vm, "it is slow: " + fabric.reason);
  if (fabric.slow_vms.empty())
    core_.stage(ledger::SliceFailed{id, fabric.reason + ", and no node of it alone is at fault"});
}

/// It is released when nothing ran on it for so long as its owner said.
void Slices::end_when_idle(const Slice& slice) {
  const std::string& id = slice.terms.slice;
  int64_t& since_ns = idle_since_ns_.try_emplace(id, core_.monotonic_ns()).first->second;
  if (jobs_left(id)) {
    since_ns = core_.monotonic_ns();
  } else if (core_.monotonic_ns() - since_ns >= slice.requested.idle_ns) {
    core_.stage(ledger::SliceReleasing{id, "it was idle for " + format_duration(slice.requested.idle_ns)});
  }
}

/// Nobody could be heard while the controller was away.
bool Slices::is_late(const Vm& vm) const {
  return vm.state != VmState::kReady &&
         core_.now_ns() - std::max(vm.requested_ns, since_ns_) > core_.provider().patience().boot_ns;
}

/// Whether a VM of the slice is, or may be, on the host.
bool Slices::has_vm_on(const Slice& slice, const std::string& host) const {
  return std::any_of(slice.vms.begin(), slice.vms.end(), [&](const std::string& name) {
    const Vm& vm = core_.state().vms.at(name);
    return vm.host == host && vm.state != VmState::kDeleted;
  });
}

void Slices::Use::add(const fleet::Fleet& fleet, fleet::HostIndex host, int64_t gpus) {
  const fleet::Series& series = fleet.series_of(host);
  const fleet::Rack& rack = fleet.rack(fleet.host(host).rack);
  const int64_t watts = gpus * series.gpu_w + (is_on[host] ? 0 : series.host_idle_w);
  is_on[host] = true;
  rack_w[fleet.host(host).rack] += watts, row_w[rack.row] += watts, site_w[rack.site] += watts;
}

const Slices::Use& Slices::use() {
  const fleet::Fleet& fleet = core_.fleet();
  if (use_.version == core_.version()) return use_;
  use_ = {core_.version(),
          std::vector<bool>(fleet.hosts().size()),
          std::vector<bool>(fleet.hosts().size()),
          {},
          {},
          {}};
  auto add = [&](const std::string& name, bool is_kept) {
    const Vm& vm = core_.state().vms.at(name);
    const auto host = fleet.find_host(vm.host);
    if (!host || vm.state == VmState::kDeleted) return;
    use_.add(fleet, *host, is_kept ? 0 : vm.gpus);
    if (!is_kept) use_.is_taken[*host] = true;
  };
  for (const std::string& id : core_.active_slices())
    for (const std::string& name : core_.state().slices.at(id).vms) add(name, false);
  for (const std::string& name : core_.state().kept_vms) add(name, true);
  return use_;
}

/// By those who had the hosts of the slice, which has no VM yet, before.
bool Slices::hosts_are_given_back(const Slice& slice) {
  const Use& now = use();
  return std::ranges::none_of(slice.terms.hosts, [&](const Share& share) {
    return now.is_taken[*core_.fleet().find_host(share.host)];
  });
}

/// By VMs that should be gone, of racks, rows and sites that its own would then be too much for.
bool Slices::power_is_given_back(const Slice& slice) {
  const fleet::Fleet& fleet = core_.fleet();
  Use then = use();
  for (const Share& share : slice.terms.hosts) then.add(fleet, *fleet.find_host(share.host), share.gpus);
  return std::ranges::none_of(slice.terms.hosts, [&](const Share& share) {
    const fleet::RackIndex index = fleet.host(*fleet.find_host(share.host)).rack;
    const fleet::Rack& rack = fleet.rack(index);
    const int64_t row_w = rack.row < 0 ? 0 : fleet.row(rack.row).power_budget_w;
    const int64_t site_w = fleet.sites()[static_cast<size_t>(rack.site)].power_budget_w;
    return then.rack_w[index] > rack.power_budget_w || (row_w > 0 && then.row_w[rack.row] > row_w) ||
           (site_w > 0 && then.site_w[rack.site] > site_w);
  });
}

void Slices::request_vm(const Slice& slice, const Share& share) {
  if (warm_.adopt(slice, share)) return;
  // A name is never used twice, so that a late word of an old VM cannot be taken for a new one's.
  const std::string base = slice.terms.name.substr(0, 48);
  size_t n = slice.vms.size();
  while (core_.state().vms.count(fmt::format("{}-{}", base, n))) ++n;
  core_.stage(ledger::VmRequested{fmt::format("{}-{}", base, n), slice.terms.slice, share.host, share.gpus});
}

void Slices::finish_release(const Slice& slice) {
  const bool vms_left = std::any_of(slice.vms.begin(), slice.vms.end(), [&](const std::string& vm) {
    return core_.state().vms.at(vm).state != VmState::kDeleted;
  });
  if (vms_left || jobs_left(slice.terms.slice) || creating_.count(slice.terms.slice)) return;
  core_.stage(ledger::SliceReleased{slice.terms.slice, {}});
  core_.after_commit([this, folder = core_.state_dir() / "jobs" / slice.terms.slice] {
    core_.offload([folder]() -> std::function<void()> {
      std::error_code ignored;  // what its jobs shared, where that is on this machine
      std::filesystem::remove_all(folder, ignored);
      return [] {};
    });
  });
  next_repair_ns_.erase(slice.terms.slice);
  repair_notes_.erase(slice.terms.slice);
  idle_since_ns_.erase(slice.terms.slice);
  at_rest_.erase(slice.terms.slice);
}

bool Slices::jobs_left(const std::string& slice) const {
  return std::ranges::any_of(core_.active_jobs(),
                             [&](const auto& active) { return active.second->slice == slice; });
}

/// Nothing of it was there before but VMs that were kept.
bool Slices::is_first_gang(const Slice& slice) const {
  return slice.state == SliceState::kStarting && std::ranges::all_of(slice.vms, [&](const std::string& name) {
           const Vm& vm = core_.state().vms.at(name);
           return vm.state == VmState::kRequested || (vm.state == VmState::kReady && vm.was_kept);
         });
}

void Slices::create_requested(const Slice& slice) {
  const std::string id = slice.terms.slice;
  // What was asked for and is not wanted any more is removed, whether it was made or not.
  if (creating_.count(id) || (slice.state != SliceState::kStarting && slice.state != SliceState::kReady))
    return;
  // The first gang and what a slice grows by are made as a whole; a replacement is one of its own.
  const bool first = is_first_gang(slice);
  cloud::CreateVms request;
  std::vector<std::string> names;
  for (const std::string& name : slice.vms) {
    const Vm& vm = core_.state().vms.at(name);
    if (vm.state != VmState::kRequested) continue;
    const bool together = first || is_added(slice, vm.host);
    if (!together && !names.empty()) continue;
    cloud::VmSpec spec;
    spec.vm = vm.id, spec.host = vm.host, spec.series = slice.terms.series,
    spec.gpus = static_cast<int>(vm.gpus);
    if (const auto group = slice.groups.find(vm.host); group != slice.groups.end())
      spec.group = static_cast<int>(group->second);
    request.vms.push_back(std::move(spec));
    names.push_back(vm.id);
    if (!together) break;
  }
  if (names.empty()) return;
  request.client_token = names.size() == slice.vms.size() ? id : names[0];
  request.spot = slice.owner.spot, request.zone = slice.requested.zone;
  if (const auto stack = find_stack(core_.state(), slice.requested.stack)) {
    const auto image = stack->images.find(std::string(core_.provider().kind()));
    if (image != stack->images.end()) request.image = image->second;
  }
  creating_.insert(id);
  core_.after_commit([this, id, names, request] {
    core_.offload([this, id, names, request]() -> std::function<void()> {
      auto made = core_.provider().create(request, core_.provider().patience().create_ns);
      return [this, id, names, made] { created(id, names, made); };
    });
  });
}

void Slices::created(const std::string& slice_id, const std::vector<std::string>& vms,
                     const Result<std::vector<cloud::VmState>>& made) {
  creating_.erase(slice_id);
  if (made) {
    for (const cloud::VmState& vm : *made) core_.stage(ledger::VmUp{vm.vm, vm.node_token_sha256});
    return;
  }
  const Slice& slice = core_.state().slices.at(slice_id);
  const std::string reason = "could not be created: " + made.error().message;
  if (is_first_gang(slice)) {
    refused(slice, made.error(), "its VMs " + reason);
  } else {
    log_warn("slice {}: {}", slice.terms.name, reason);
    for (const std::string& vm : vms) core_.suspect_host(core_.state().vms.at(vm).host);
  }
  for (const std::string& vm : vms) {
    core_.stage(ledger::NodeDown{vm, reason});
    core_.stage(ledger::VmDeleted{vm});
  }
}

void Slices::node_down(const std::string& name, const std::string& reason) {
  const Vm& vm = core_.state().vms.at(name);
  core_.suspect_host(vm.host);
  log_warn("node {} on host {} is down: {}", name, vm.host, reason);
  const std::string text = fmt::format("node {} on host {} is down: {}", name, vm.host, reason);
  core_.stage(ledger::NodeDown{name, reason});
  core_.node_launcher().on_vm_lost(name, text);
}

void Slices::delete_unwanted(const Slice& slice) {
  const bool wanted = slice.state == SliceState::kStarting || slice.state == SliceState::kReady ||
                      (slice.state == SliceState::kReleasing && jobs_left(slice.terms.slice));
  if (creating_.count(slice.terms.slice)) return;
  std::set<std::string, std::less<>> paid;
  for (const Share& share : slice.terms.hosts) paid.insert(share.host);
  const std::vector<std::string> vms = slice.vms;  // which loses those that are kept
  for (const std::string& name : vms) {
    const Vm& vm = core_.state().vms.at(name);
    if (vm.state == VmState::kDeleted) continue;
    const bool has_place =
        slice.state == SliceState::kReleasing || paid.contains(vm.host) || is_added(slice, vm.host);
    if (wanted && has_place && vm.state != VmState::kDown) continue;
    if (auto again = removing_.find(name); again != removing_.end() && core_.monotonic_ns() < again->second)
      continue;
    // One that was being removed may be half gone.
    if (!removing_.count(name) && warm_.keep(slice, vm)) continue;
    removing_[name] = INT64_MAX;
    end_vm(core_, name, [this, name](const Status& removed) {
      if (!removed) {
        log_warn("VM {}: could not be deleted: {}; trying again", name, removed.error().message);
        removing_[name] = core_.monotonic_ns() + kSecond;
        return;
      }
      removing_.erase(name);
      core_.stage(ledger::VmDeleted{name});
      core_.node_launcher().on_vm_lost(name, "node " + name + " was deleted");
    });
  }
}

std::string Slices::repair_note(const std::string& slice) const {
  const auto note = repair_notes_.find(slice);
  return note == repair_notes_.end() ? std::string() : note->second;
}

}  // namespace th::control
