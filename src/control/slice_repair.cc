// Lost nodes of slices: another host takes the place.

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "control/slices.h"

namespace th::control {
namespace {

using ledger::Share;
using ledger::Slice;
using ledger::Vm;

constexpr size_t kMinReplaced = 3;  // nodes of a slice that starts, or a tenth of them where that is more
constexpr int64_t kRepairIntervalNs = kSecond;

}  // namespace

void Slices::repair(const Slice& slice) {
  const std::string& id = slice.terms.slice;
  const auto there = live_vms(core_.state(), slice);
  const auto lost = std::ranges::find_if(slice.terms.hosts,
                                         [&](const Share& share) { return !there.contains(share.host); });
  if (lost == slice.terms.hosts.end()) {
    repair_notes_.erase(id);
    return;
  }
  int64_t& next_ns = next_repair_ns_[id];
  if (core_.monotonic_ns() < next_ns) return;
  next_ns = core_.monotonic_ns() + kRepairIntervalNs;
  const Share share = *lost;
  if (Status replaced = replace(slice, share); !replaced) {
    repair_notes_[id] = replaced.error().message;
  } else {
    repair_notes_.erase(id);
  }
}

/// Errors: why no host can take the place now.
Status Slices::replace(const Slice& slice, const Share& lost) {
  reserve::Request request;
  request.name = slice.terms.name, request.gpus = lost.gpus, request.series = slice.terms.series;
  request.duration_ns = slice.terms.end_ns - core_.now_ns();
  reserve::Policy policy;
  policy.find_changes = false;
  // Its own host serves again once nothing of the lost VM is left there.
  const auto snapshot = has_vm_on(slice, lost.host)
                            ? core_.snapshot_without_suspects()
                            : core_.snapshot_without_share(slice.terms.slice, lost.host);
  auto plan = reserve::decide(snapshot, request, policy, core_.now_ns());
  if (!plan) {
    return fail(Code::kUnsatisfiable,
                fmt::format("no host can take the place of {} now: {}", lost.host, plan.error().text));
  }
  const std::vector<Share> replacement = shares_of(*plan, core_.fleet());
  if (replacement.size() != 1 || replacement[0].gpus != lost.gpus) {
    return fail(Code::kUnsatisfiable,
                fmt::format("no single host has the {} GPUs that {} had", lost.gpus, lost.host));
  }
  if (!warm_.make_room(slice, replacement))
    return fail(Code::kUnavailable, "a VM that was kept on " + replacement[0].host + " is being deleted");
  core_.stage(ledger::SliceHostReplaced{slice.terms.slice, lost.host, replacement[0]});
  request_vm(slice, replacement[0]);
  return {};
}

/// A node that never comes up is replaced, but not for ever: whoever waits gets an answer.
void Slices::replace_at_start(const Slice& slice, const Share& lost) {
  const std::string& id = slice.terms.slice;
  std::string reason = "it is gone";
  for (const std::string& name : slice.vms) {
    const Vm& vm = core_.state().vms.at(name);
    if (vm.host == lost.host) reason = fmt::format("node {} on host {}: {}", name, lost.host, vm.reason);
  }
  const size_t replaced = slice.vms.size() - slice.terms.hosts.size();
  if (replaced >= std::max(kMinReplaced, slice.terms.hosts.size() / 10)) {
    core_.stage(ledger::SliceFailed{
        id, fmt::format("{}; {} nodes that did not come up were replaced before it", reason, replaced)});
    return;
  }
  const Status made = replace(slice, lost);
  if (!made && made.error().code != Code::kUnavailable)
    core_.stage(ledger::SliceFailed{id, reason + "; " + made.error().message});
}

}  // namespace th::control
