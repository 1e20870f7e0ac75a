#include "sim/world/recount.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace th::sim {

int64_t recounted_microusd(int64_t gpu_ns, int64_t microusd_per_gpu_hour) {
  __extension__ using Wide = __int128;
  constexpr Wide kHour = Wide{3600} * 1'000'000'000;
  return static_cast<int64_t>((Wide{gpu_ns} * microusd_per_gpu_hour * 2 + kHour) / (kHour * 2));
}

Recount::Recount(const fleet::Fleet& fleet, TenantRules rules, OnViolation on_violation)
    : fleet_(fleet), books_(std::move(rules)), violation_(std::move(on_violation)) {}

void Recount::take(const ledger::Entry& entry) {
  if (entry.time_ns < now_ns_) violation_(kBroken, fmt::format("event {} is older than its past", entry.seq));
  now_ns_ = entry.time_ns;
  std::visit([this](const auto& event) { on(event); }, entry.event);
}

void Recount::on(const ledger::SliceHeld& e) {
  Lease& lease = leases_[e.slice];
  lease.name = e.name, lease.series = e.series, lease.start_ns = e.start_ns, lease.end_ns = e.end_ns;
  lease.expires_ns = e.hold_expires_ns, lease.rate = e.microusd_per_gpu_hour;
  lease.gpus = e.gpus, lease.microusd = e.price_microusd, lease.implicit = e.implicit;
  int64_t gpus = 0;
  for (const ledger::Share& share : e.hosts) {
    if (!lease.hosts.emplace(share.host, share.gpus).second) {
      violation_(kDoubleLease, fmt::format("{} holds host {} twice", e.slice, share.host));
    }
    gpus += share.gpus;
  }
  live_.insert(e.slice);
  if (gpus != e.gpus)
    violation_(kHalfGang, fmt::format("{}: {} GPUs of {} are placed", e.slice, gpus, e.gpus));
  const int64_t price = recounted_microusd(gpus * (e.end_ns - e.start_ns), e.microusd_per_gpu_hour);
  if (price != e.price_microusd) {
    violation_(kMoney, fmt::format("{} is offered for {} micro-dollars and comes to {}", e.slice,
                                   e.price_microusd, price));
  }
  for (const auto& [host, count] : lease.hosts) {
    check_window(e.slice, host, e.start_ns);
    check_rack(host, e.start_ns);
  }
}

void Recount::on(const ledger::SliceOwned& e) {
  Lease& lease = leases_.at(e.slice);
  const bool firm = !e.spot && !lease.implicit;  // a job goes back to the queue, what is spot is given back
  lease.share = {e.account, e.qos, firm, lease.gpus, lease.start_ns, lease.end_ns, now_ns_, lease.microusd};
  check_account(e.slice);
  lease.reservation = e.reservation;
  for (const auto& [host, gpus] : lease.hosts) check_reserved(e.slice, host, lease.start_ns);
  check_inside(e.slice, e.user);
}

void Recount::check_account(const std::string& slice) {
  for (const std::string& what : books_.put(slice, leases_.at(slice).share, now_ns_))
    violation_(kQuota, fmt::format("with {} {}", slice, what));
}

/// From now to its end it has so many GPUs, at its own rate.
void Recount::resize(const std::string& slice, int64_t gpus, int64_t microusd) {
  Lease& lease = leases_.at(slice);
  const int64_t more = recounted_microusd(std::abs(gpus - lease.gpus) * (lease.end_ns - now_ns_), lease.rate);
  const int64_t price = lease.microusd + (gpus < lease.gpus ? -more : more);
  if (price != microusd) {
    violation_(kMoney, fmt::format("{} with {} GPUs is offered for {} micro-dollars and comes to {}", slice,
                                   gpus, microusd, price));
  }
  lease.share.gpus = gpus, lease.share.microusd = microusd;
  check_account(slice);
}

void Recount::check_window(const std::string& slice, const std::string& host, int64_t from_ns) {
  const Lease& own = leases_.at(slice);
  for (const std::string& id : live_) {
    if (id == slice) continue;
    const Lease& other = leases_.at(id);
    if (!other.hosts.count(host) && !other.adding.count(host)) continue;
    const int64_t other_end_ns = std::max(other.end_ns, now_ns_ + 1);  // overdue: it is still there
    if (other.start_ns < own.end_ns && from_ns < other_end_ns) {
      violation_(kDoubleLease,
                 fmt::format("host {} belongs to {} and to {} at the same time", host, id, slice));
    }
  }
}

/// The most that the rack's leases draw together at any time from `from_ns` on.
void Recount::check_rack(const std::string& name, int64_t from_ns) {
  const auto index = fleet_.find_host(name);
  if (!index) return violation_(kDoubleLease, "a host that does not exist is leased: " + name);
  const fleet::Rack& rack = fleet_.rack(fleet_.host(*index).rack);
  struct Draw {
    int64_t start_ns, end_ns, watts;
  };
  std::vector<Draw> draws;
  for (const std::string& id : live_) {
    const Lease& lease = leases_.at(id);
    for (int32_t i = 0; i < rack.num_hosts; ++i) {
      const std::string& host = fleet_.host(rack.first_host + i).id;
      const auto& hosts = lease.adding.count(host) ? lease.adding : lease.hosts;
      const auto found = hosts.find(host);
      // Of a job that had notice: until then, and for as long as it is there.
      const int64_t end_ns = std::min(lease.end_ns, std::max(lease.notice_ns, now_ns_ + 1));
      if (found == hosts.end() || end_ns <= from_ns) continue;
      const fleet::Series& series = fleet_.series_of(rack.first_host + i);
      draws.push_back({lease.start_ns, end_ns, series.host_idle_w + found->second * series.gpu_w});
    }
  }
  for (const Draw& at : draws) {
    const int64_t time_ns = std::max(at.start_ns, from_ns);
    int64_t watts = 0;
    for (const Draw& draw : draws)
      watts += draw.start_ns <= time_ns && time_ns < draw.end_ns ? draw.watts : 0;
    if (watts > rack.power_budget_w) {
      return violation_(kPower,
                        fmt::format("rack {}: leases draw {} W of {}", rack.id, watts, rack.power_budget_w));
    }
  }
}

void Recount::on(const ledger::SliceHostReplaced& e) {
  Lease& lease = leases_.at(e.slice);
  if (!lease.hosts.erase(e.lost)) violation_(kBroken, fmt::format("{} never had {}", e.slice, e.lost));
  lease.hosts[e.host.host] = e.host.gpus;
  check_window(e.slice, e.host.host, now_ns_);
  check_reserved(e.slice, e.host.host, now_ns_);
  check_rack(e.host.host, now_ns_);
}

void Recount::on(const ledger::SliceCommitted& e) {
  Lease& lease = leases_.at(e.slice);
  if (lease.phase != Lease::kHeld || lease.expires_ns < now_ns_) {
    violation_(kBroken, fmt::format("{} is committed and was not held any more", e.slice));
  }
  lease.phase = Lease::kCommitted;
}

void Recount::on(const ledger::SliceReady& e) {
  Lease& lease = leases_.at(e.slice);
  lease.phase = Lease::kReady;
  lease.since_ns = now_ns_;
  std::map<std::string, int64_t> there;
  for (const auto& [host, gpus] : lease.hosts) lease.paying_gpus += there[host] = ready_gpus(e.slice, host);
  if (there != lease.hosts) violation_(kHalfGang, fmt::format("{} is handed over and is not whole", e.slice));
}

int64_t Recount::ready_gpus(const std::string& slice, const std::string& host) const {
  int64_t out = 0;
  const auto there = on_host_.find(host);
  if (there == on_host_.end()) return out;
  for (const std::string& id : there->second) {
    const Vm& vm = vms_.at(id);
    if (vm.slice == slice && vm.phase == Vm::kReady) out += vm.gpus;
  }
  return out;
}

void Recount::on(const ledger::SliceResizing& e) {
  Lease& lease = leases_.at(e.slice);
  for (const ledger::Share& share : e.add) {
    if (lease.hosts.count(share.host))
      violation_(kDoubleLease, fmt::format("{} has {} already", e.slice, share.host));
    lease.adding[share.host] = share.gpus;
  }
  resize(e.slice, e.gpus, e.price_microusd);
  for (const auto& [host, gpus] : lease.adding) {
    check_window(e.slice, host, now_ns_);
    check_reserved(e.slice, host, now_ns_);
    check_rack(host, now_ns_);
  }
}

/// All of what was added or nothing, and every node of it is there.
void Recount::on(const ledger::SliceResized& e) {
  Lease& lease = leases_.at(e.slice);
  const bool has_grown = !lease.adding.empty();
  if (!has_grown) resize(e.slice, e.gpus, e.price_microusd);
  if (has_grown && (lease.share.gpus != e.gpus || lease.share.microusd != e.price_microusd))
    violation_(kMoney, fmt::format("{} has other terms than it was to grow to", e.slice));
  lease.gpus = e.gpus, lease.microusd = e.price_microusd;
  for (const auto& [host, gpus] : std::exchange(lease.adding, {})) {
    lease.hosts[host] = gpus;
    if (ready_gpus(e.slice, host) != gpus) {
      violation_(kHalfGang, fmt::format("{} has grown by host {}, which is not ready", e.slice, host));
    }
  }
  for (const std::string& host : e.remove) lease.hosts.erase(host);
  int64_t gpus = 0, ready = 0;
  for (const auto& [host, count] : lease.hosts) gpus += count, ready += ready_gpus(e.slice, host);
  if (gpus != e.gpus)
    violation_(kHalfGang, fmt::format("{} is told to have {} GPUs and has {}", e.slice, e.gpus, gpus));
  if (lease.phase == Lease::kReady) pay(lease, ready);
}

void Recount::on(const ledger::SliceResizeFailed& e) {
  Lease& lease = leases_.at(e.slice);
  lease.adding.clear();
  lease.share.gpus = lease.gpus, lease.share.microusd = lease.microusd;
  check_account(e.slice);
}

void Recount::on(const ledger::SliceReleasing& e) {
  Lease& lease = leases_.at(e.slice);
  if (lease.phase == Lease::kReady) pay(lease, 0);
  lease.phase = Lease::kReleasing;
  lease.adding.clear();  // no VM gets there before the one that was asked for is gone
  // From here it is there until it is gone, as one that is overdue; before its start it is gone at once.
  if (lease.start_ns < now_ns_) lease.end_ns = std::min(lease.end_ns, now_ns_);
  lease.share.gpus = lease.gpus, lease.share.microusd = lease.microusd;
  lease.share.end_ns = std::min(lease.share.end_ns, lease.end_ns);
  check_account(e.slice);
}

void Recount::on(const ledger::SliceReleased& e) {
  for (const auto& [id, vm] : vms_) {
    if (vm.slice == e.slice && vm.phase != Vm::kDeleted) {
      violation_(kLeakedVm, fmt::format("{} is told as released and still has VM {}", e.slice, id));
    }
  }
  end(e.slice);
}

void Recount::end(const std::string& slice) {
  Lease& lease = leases_.at(slice);
  lease.phase = Lease::kGone;
  live_.erase(slice);
  books_.end(slice, recounted_microusd(gpu_ns_at(lease, now_ns_), lease.rate));
}

int64_t Recount::gpu_ns_at(const Lease& lease, int64_t now_ns) const {
  const int64_t until_ns = std::min(now_ns, lease.end_ns);
  return lease.paid_gpu_ns + lease.paying_gpus * std::max<int64_t>(0, until_ns - lease.since_ns);
}

Recount::Paid Recount::check_bills(const ledger::State& state, int64_t now_ns) const {
  Paid paid;
  for (const auto& [id, lease] : leases_) {
    const auto found = state.slices.find(id);
    if (found == state.slices.end()) {
      violation_(kMoney, id + " has no bill");
      continue;
    }
    const int64_t gpu_ns = gpu_ns_at(lease, now_ns);
    const int64_t microusd = recounted_microusd(gpu_ns, lease.rate);
    const int64_t billed = found->second.cost_microusd_at(now_ns);
    if (found->second.gpu_ns_at(now_ns) != gpu_ns || microusd != billed)
      violation_(kMoney, fmt::format("{} is billed {} micro-dollars and comes to {}", id, billed, microusd));
    paid.gpu_ns += gpu_ns, paid.microusd += microusd;
  }
  return paid;
}

int64_t Recount::gpus_in_use() const {
  int64_t out = 0;
  for (const std::string& id : live_) out += leases_.at(id).paying_gpus;
  return out;
}

void Recount::pay(Lease& lease, int64_t gpus) {
  lease.paid_gpu_ns = gpu_ns_at(lease, now_ns_);
  lease.since_ns = now_ns_, lease.paying_gpus = gpus;
}

void Recount::on(const ledger::VmRequested& e) {
  for (const std::string& vm : on_host_[e.host]) {
    violation_(kDoubleLease, fmt::format("VM {} is asked for on host {}, which still has VM {} of {}", e.vm,
                                         e.host, vm, vms_.at(vm).slice));
  }
  const Lease& lease = leases_.at(e.slice);
  if (!lease.hosts.count(e.host) && !lease.adding.count(e.host)) {
    violation_(kDoubleLease,
               fmt::format("VM {} is asked for on host {}, which {} does not lease", e.vm, e.host, e.slice));
  }
  vms_[e.vm] = {e.slice, e.host, e.gpus, Vm::kAsked};
  on_host_[e.host].insert(e.vm);
}

void Recount::move(const std::string& name, decltype(Vm::phase) phase) {
  Vm& vm = vms_.at(name);
  const int64_t change = (phase == Vm::kReady ? vm.gpus : 0) - (vm.phase == Vm::kReady ? vm.gpus : 0);
  vm.phase = phase;
  if (const auto found = leases_.find(vm.slice); found != leases_.end()) {
    Lease& lease = found->second;
    if (change != 0 && lease.phase == Lease::kReady && lease.hosts.count(vm.host))
      pay(lease, lease.paying_gpus + change);
  }
  if (phase == Vm::kDeleted) on_host_[vm.host].erase(name);
}

void Recount::on(const ledger::VmKept& e) {
  Vm& vm = vms_.at(e.vm);
  if (vm.phase != Vm::kReady || leases_.at(vm.slice).phase != Lease::kReleasing)
    violation_(kBroken, fmt::format("VM {} is kept and {} still has it", e.vm, vm.slice));
  vm.slice.clear();
}

void Recount::on(const ledger::VmAdopted& e) {
  Vm& vm = vms_.at(e.vm);
  const Lease& lease = leases_.at(e.slice);
  const auto& hosts = lease.adding.count(vm.host) ? lease.adding : lease.hosts;
  const auto share = hosts.find(vm.host);
  if (!vm.slice.empty() || vm.phase != Vm::kReady || share == hosts.end() || share->second != vm.gpus)
    violation_(kDoubleLease, fmt::format("VM {} on host {} is not for {} to take", e.vm, vm.host, e.slice));
  vm.slice = e.slice, vm.phase = Vm::kAsked;
}

/// A slice of its own is gone by the end of the notice, or overdue from then on.
void Recount::on(const ledger::JobPreempted& e) {
  for (const std::string& id : live_) {
    Lease& lease = leases_.at(id);
    if (!lease.implicit || lease.name != e.job) continue;
    lease.notice_ns = e.deadline_ns;
    lease.share.end_ns = std::min(lease.share.end_ns, e.deadline_ns);
    check_account(id);
  }
}

void Recount::on(const ledger::AttemptStarted& e) {
  const int64_t want = jobs_.at(e.job).gpus;
  jobs_.at(e.job).ranks = static_cast<int64_t>(e.ranks.size());
  std::set<std::pair<std::string, int64_t>> gpus;
  for (const ledger::RankPlace& rank : e.ranks) {
    const Vm& vm = vms_.at(rank.vm);
    if (vm.slice != e.slice || vm.phase != Vm::kReady) {
      violation_(kHalfGang,
                 fmt::format("{} starts on VM {}, which is not ready or not of {}", e.job, rank.vm, e.slice));
    }
    for (int64_t gpu : rank.gpus) {
      if (gpu >= vm.gpus || !gpus.emplace(rank.vm, gpu).second) {
        violation_(kDoubleLease,
                   fmt::format("{} has GPU {} of VM {} twice, or it is none", e.job, gpu, rank.vm));
      }
    }
  }
  if (static_cast<int64_t>(gpus.size()) != want) {
    violation_(kHalfGang, fmt::format("{} starts on {} GPUs of {}", e.job, gpus.size(), want));
  }
}

}  // namespace th::sim
