// How a live slice grows and shrinks, and the end of those whose time is over.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "base/units.h"
#include "control/slices.h"
#include "control/visible.h"
#include "fleet/series.h"

namespace th::control {
namespace {

using ledger::Slice;
using ledger::SliceState;
using ledger::Vm;
using ledger::VmState;

constexpr int64_t kShrinkTimeoutNs = 10 * kMinute;  // beyond every sensible grace

/// The VM that was asked for on an added host; null when it is gone again.
const Vm* added_vm(const ledger::State& state, const Slice& slice, const std::string& host) {
  for (auto id = slice.vms.rbegin(); id != slice.vms.rend(); ++id) {
    const Vm& vm = state.vms.at(*id);
    if (vm.host == host && vm.requested_ns >= slice.resize->since_ns) return &vm;
  }
  return nullptr;
}

}  // namespace

Status Slices::resize(const std::string& name, int64_t gpus, const reserve::Snapshot& reservations) {
  const Slice* slice = find_slice(core_, name);
  if (!slice)
    return fail(Code::kNotFound, "slice '" + name + "' does not exist; th slice list shows those that do");
  if (slice->state != SliceState::kReady || slice->terms.implicit) {
    return fail(Code::kFailedPrecondition,
                fmt::format("slice '{}' is {}; only a slice of its own that is ready can be resized", name,
                            slice->terms.implicit ? "a job's" : ledger::name_of(slice->state)));
  }
  if (slice->resize) {
    return fail(Code::kFailedPrecondition,
                fmt::format("slice '{}' is being resized to {} GPUs already; wait for it", name,
                            slice->resize->asked.gpus));
  }
  if (gpus < 1 || gpus > request::kMaxRequestGpus) {
    return fail(Code::kInvalidArgument,
                fmt::format("gpus: want 1 to {}, got {}; to give all back: th slice release {}",
                            request::kMaxRequestGpus, gpus, name));
  }
  const int64_t whole = request::whole_host_gpus(gpus, slice->terms.series);
  if (whole == slice->terms.gpus) return {};
  return whole > slice->terms.gpus ? grow(*slice, whole, reservations) : shrink(*slice, whole);
}

Status Slices::grow(const Slice& slice, int64_t gpus, const reserve::Snapshot& reservations) {
  reserve::Pending more;
  more.request.name = slice.terms.name, more.request.gpus = gpus - slice.terms.gpus;
  more.request.series = slice.terms.series, more.request.duration_ns = slice.terms.end_ns - core_.now_ns();
  more.who.account = account_of(slice.owner), more.who.user = slice.owner.user,
  more.who.qos = qos_of(slice.owner), more.who.submitted_ns = slice.held_ns;
  more.spot = slice.owner.spot;
  auto plan = decide(reservations, more);
  if (!plan) return fail(plan.error().error());
  ledger::SliceResizing asked{slice.terms.slice, gpus, 0, {}};
  asked.price_microusd =
      slice.terms.price_microusd +
      cost_microusd(more.request.gpus, more.request.duration_ns, slice.terms.microusd_per_gpu_hour);
  asked.add = shares_of(*plan, core_.fleet());
  const std::vector<ledger::Share> added = asked.add;
  if (!warm_.make_room(slice, added))
    return fail(Code::kUnavailable, "VMs that were kept on the hosts for it are being deleted; try again");
  core_.stage(std::move(asked));
  for (const ledger::Share& share : added) request_vm(slice, share);
  return {};
}

/// Host → the jobs of which ranks are there, or may be.
std::map<std::string, std::set<std::string>> Slices::occupants(const Slice& slice) const {
  std::map<std::string, std::set<std::string>> out;
  for (const auto& [id, active] : core_.active_jobs()) {
    const ledger::Job& job = *active;
    if (job.slice != slice.terms.slice || (!job.attempt_open && !job.cancelling() && !has_ranks(id)))
      continue;
    for (const ledger::Rank& rank : job.ranks) out[core_.state().vms.at(rank.place.vm).host].insert(id);
    for (const ledger::RankPlace& place : job.reserved) out[core_.state().vms.at(place.vm).host].insert(id);
  }
  return out;
}

/// Down to so many GPUs, or as few as the hosts outside of `keep` allow. Those that are lost go first, then
/// those on leaves where the slice has least.
ledger::SliceResized Slices::give_back(const Slice& slice, int64_t gpus,
                                       const std::set<std::string>& keep) const {
  std::map<std::string, int64_t> on_leaf;
  for (const ledger::Share& share : slice.terms.hosts) on_leaf[share.leaf] += share.gpus;
  std::vector<ledger::Share> hosts;
  for (const ledger::Share& share : slice.terms.hosts) {
    if (!keep.count(share.host)) hosts.push_back(share);
  }
  std::ranges::stable_sort(hosts, {}, [&](const ledger::Share& share) {
    return std::pair(live_vm(core_.state(), slice, share.host) != nullptr, on_leaf[share.leaf]);
  });
  ledger::SliceResized out{slice.terms.slice, slice.terms.gpus, 0, {}};
  for (const ledger::Share& share : hosts) {
    if (out.gpus - share.gpus < gpus) continue;
    out.gpus -= share.gpus;
    out.remove.push_back(share.host);
  }
  out.price_microusd = slice.terms.price_microusd - cost_microusd(slice.terms.gpus - out.gpus,
                                                                  slice.terms.end_ns - core_.now_ns(),
                                                                  slice.terms.microusd_per_gpu_hour);
  return out;
}

Status Slices::shrink(const Slice& slice, int64_t gpus) {
  const auto jobs = occupants(slice);
  std::set<std::string> busy, firm, in_the_way;
  for (const auto& [host, there] : jobs) {
    busy.insert(host);
    for (const std::string& job : there) {
      if (can_shrink_to(job, gpus)) continue;
      firm.insert(host), in_the_way.insert(job);
    }
  }
  ledger::SliceResized done = give_back(slice, gpus, busy);
  if (done.gpus == gpus) {
    core_.stage(std::move(done));
    return {};
  }
  const ledger::SliceResized later = give_back(slice, gpus, firm);
  if (later.gpus != gpus) {
    return fail(
        Code::kFailedPrecondition,
        fmt::format("slice '{}' cannot have {} GPUs now, since {} run on its hosts; ask for {}, or wait for "
                    "them or cancel them",
                    slice.terms.name, gpus,
                    join(std::vector<std::string>(in_the_way.begin(), in_the_way.end()), ", "), later.gpus));
  }
  core_.stage(ledger::SliceResizing{slice.terms.slice, gpus, later.price_microusd, {}});
  std::set<std::string> told;
  for (const std::string& host : later.remove) {
    const auto there = jobs.find(host);
    if (there == jobs.end()) continue;
    for (const std::string& job : there->second) {
      if (told.insert(job).second) rescale(job, slice.terms.name);
    }
  }
  return {};
}

/// Nothing new starts in the slice meanwhile, so that what ends leaves room.
void Slices::advance_shrink(const Slice& slice) {
  std::set<std::string> busy;
  for (const auto& [host, jobs] : occupants(slice)) busy.insert(host);
  ledger::SliceResized done = give_back(slice, slice.resize->asked.gpus, busy);
  if (done.gpus == slice.resize->asked.gpus) {
    core_.stage(std::move(done));
  } else if (core_.now_ns() - std::max(slice.resize->since_ns, since_ns_) > kShrinkTimeoutNs) {
    core_.stage(ledger::SliceResizeFailed{
        slice.terms.slice,
        fmt::format("it keeps its {} GPUs: the jobs in the way did not end in time", slice.terms.gpus)});
  }
}

void Slices::advance_resize(const Slice& slice) {
  if (slice.resize->asked.gpus < slice.terms.gpus) return advance_shrink(slice);
  const ledger::SliceResizing asked = slice.resize->asked;
  bool all_ready = true;
  for (const ledger::Share& host : asked.add) {
    const Vm* vm = added_vm(core_.state(), slice, host.host);
    const bool lost = !vm || vm->state == VmState::kDown || vm->state == VmState::kDeleted;
    const bool late = vm && is_late(*vm);
    if (lost || late) {
      core_.stage(
          ledger::SliceResizeFailed{asked.slice, fmt::format("it keeps its {} GPUs: node {} on host {} {}",
                                                             slice.terms.gpus, vm ? vm->id : "?", host.host,
                                                             late ? "did not come up in time"
                                                             : vm ? vm->reason
                                                                  : "is gone")});
      return;
    }
    all_ready = all_ready && vm->state == VmState::kReady;
  }
  if (all_ready) core_.stage(ledger::SliceResized{asked.slice, asked.gpus, asked.price_microusd, {}});
}

void Slices::end_what_is_over() {
  std::vector<std::string> over;
  for (const auto& [name, reservation] : core_.state().reservations) {
    if (reservation.end_ns <= core_.now_ns()) over.push_back(name);
  }
  for (const std::string& name : over) core_.stage(ledger::ReservationEnded{name, "its time is over"});
  std::vector<std::string> caps;
  for (const auto& [name, cap] : core_.state().power_caps) {
    if (cap.end_ns <= core_.now_ns()) caps.push_back(name);
  }
  for (const std::string& name : caps) core_.stage(ledger::PowerUncapped{name, "its time is over"});
}

}  // namespace th::control
