// apply() for the events of slice_events.h.

#include <algorithm>

#include "ledger/apply_tenants.h"

namespace th::ledger::detail {
namespace {

tl::unexpected<Error> refuse(const std::string& what) { return fail(Code::kDataLoss, what); }

Result<Slice*> find_live(State& state, const std::string& id) {
  const auto slice = state.slices.find(id);
  if (slice == state.slices.end()) return refuse("slice " + id + " is unknown");
  if (!slice->second.live()) return refuse("slice " + id + " has ended");
  return &slice->second;
}

}  // namespace

Status apply(State& state, const StackAdded& e, int64_t) {
  const auto [at, fresh] = state.stacks.emplace(e.name + "@" + e.version, e.text);
  if (!fresh && at->second != e.text) return refuse("stack " + at->first + " exists with another content");
  return {};
}

Status apply(State& state, const DataSetAdded& e, int64_t) {
  auto& versions = state.data_sets[e.name];
  const bool is_known =
      std::ranges::any_of(versions, [&](const DataSetAdded& other) { return other.version == e.version; });
  if (is_known) return refuse("data set " + e.name + "@" + e.version + " exists already");
  versions.push_back(e);
  return {};
}

Status apply(State& state, const SliceRequested& e, int64_t) {
  TH_TRY(Slice * slice, find_live(state, e.slice));
  slice->requested = e;
  return {};
}

Status apply(State& state, const SliceFault& e, int64_t) {
  const auto slice = state.slices.find(e.slice);
  if (slice == state.slices.end() || slice->second.state != SliceState::kFailed)
    return refuse("slice " + e.slice + " did not fail");
  slice->second.fault_code = e.code, slice->second.reason = e.reason;
  return {};
}

Status apply(State& state, const VmBilled& e, int64_t) {
  const auto vm = state.vms.find(e.vm);
  if (vm == state.vms.end()) return refuse("VM " + e.vm + " is unknown");
  vm->second.billed_ns[e.created_ns] = e.ended_ns;
  return {};
}

Status apply(State& state, const VmKept& e, int64_t now_ns) {
  const auto found = state.vms.find(e.vm);
  if (found == state.vms.end() || found->second.state != VmState::kReady)
    return refuse("VM " + e.vm + " is not ready");
  Vm& vm = found->second;
  Slice& slice = state.slices.at(vm.slice);
  if (slice.state != SliceState::kReleasing) return refuse("slice " + vm.slice + " is not being released");
  std::erase(slice.vms, e.vm);
  vm.state = VmState::kKept, vm.changed_ns = now_ns;
  state.kept_vms.insert(e.vm);
  return {};
}

Status apply(State& state, const VmAdopted& e, int64_t now_ns) {
  const auto found = state.vms.find(e.vm);
  if (found == state.vms.end() || found->second.state != VmState::kKept)
    return refuse("VM " + e.vm + " is not kept");
  TH_TRY(Slice * slice, find_live(state, e.slice));
  Vm& vm = found->second;
  vm.slice = e.slice, vm.state = VmState::kUp, vm.was_kept = true, vm.requested_ns = vm.changed_ns = now_ns;
  slice->vms.push_back(e.vm);
  state.kept_vms.erase(e.vm);
  return {};
}

}  // namespace th::ledger::detail
