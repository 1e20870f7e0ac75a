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
  const ledger::State& state = core_.state();
  const auto lost = std::find_if(slice.terms.hosts.begin(), slice.terms.hosts.end(), [&](const Share& share) {
    return live_vm(state, slice, share.host) == nullptr;
  });
  if (lost == slice.terms.hosts.end()) {
    repair_notes_.erase(id);
    return;
  }
  int64_t& next_ns = next_repair_ns_[id];
  if (core_.monotonic_ns() < next_ns) return;
  next_ns = core_.monotonic_ns() + kRepairIntervalNs;
  const Share share = *lost;
  const auto replacement = replacement_for(slice, share);
  if (!replacement) {
    repair_notes_[id] = replacement.error().message;
    return;
  }
  repair_notes_.erase(id);
  core_.stage(ledger::SliceHostReplaced{id, share.host, *replacement});
  request_vm(slice, *replacement);
}

Result<Share> Slices::replacement_for(const Slice& slice, const Share& lost) const {
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
  std::vector<Share> replacement = shares_of(*plan, core_.fleet());
  if (replacement.size() == 1 && replacement[0].gpus == lost.gpus) return replacement[0];
  return fail(Code::kUnsatisfiable,
              fmt::format("no single host has the {} GPUs that {} had", lost.gpus, lost.host));
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
  const auto replacement = replacement_for(slice, lost);
  if (!replacement) {
    core_.stage(ledger::SliceFailed{id, reason + "; " + replacement.error().message});
    return;
  }
  core_.stage(ledger::SliceHostReplaced{id, lost.host, *replacement});
  request_vm(slice, *replacement);
}

}  // namespace th::control
