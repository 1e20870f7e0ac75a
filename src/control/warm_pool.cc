#include "control/warm_pool.h"

#include <algorithm>

#include "base/log.h"
#include "base/units.h"
#include "control/end_vm.h"

namespace th::control {
namespace {

using ledger::Slice;
using ledger::Vm;
using ledger::VmState;

}  // namespace

bool WarmPool::keep(const Slice& slice, const Vm& vm) {
  const ledger::State& state = core_.state();
  const bool wanted = !closing_ && static_cast<int64_t>(state.kept_vms.size()) < core_.policy().warm_vms;
  const bool sound = vm.state == VmState::kReady && !core_.is_leaving(vm.id) && !slice.owner.spot &&
                     state.drained.count(vm.host) == 0;
  if (!wanted || !sound || slice.state != ledger::SliceState::kReleasing) return false;
  core_.stage(ledger::VmKept{vm.id});
  return true;
}

bool WarmPool::fits(const Slice& slice, const ledger::Share& share, const Vm& vm) const {
  const Slice& former = core_.state().slices.at(vm.slice);
  return vm.state == VmState::kKept && !is_ending(vm.id) && vm.host == share.host && vm.gpus == share.gpus &&
         former.requested.stack == slice.requested.stack && former.requested.zone == slice.requested.zone &&
         !slice.owner.spot && account_of(former.owner) == account_of(slice.owner);
}

bool WarmPool::adopt(const Slice& slice, const ledger::Share& share) {
  for (const std::string& id : core_.state().kept_vms) {
    const Vm& vm = core_.state().vms.at(id);
    if (!fits(slice, share, vm)) continue;
    const ledger::NodeValidated known{vm.id, vm.boot_id, vm.address};
    core_.stage(ledger::VmAdopted{vm.id, slice.terms.slice});
    core_.stage(known);
    return true;
  }
  return false;
}

bool WarmPool::make_room(const Slice& slice, const std::vector<ledger::Share>& hosts) {
  bool clear = true;
  for (const std::string& id : core_.state().kept_vms) {
    const Vm& vm = core_.state().vms.at(id);
    const auto share = std::ranges::find(hosts, vm.host, &ledger::Share::host);
    if (share == hosts.end() || fits(slice, *share, vm)) continue;
    clear = false;
    end(id);
  }
  return clear;
}

void WarmPool::end_all() {
  for (const std::string& id : core_.state().kept_vms) end(id);
}

void WarmPool::step() {
  for (const std::string& id : core_.state().kept_vms) {
    const Vm& vm = core_.state().vms.at(id);
    const bool over = core_.now_ns() - vm.changed_ns >= core_.policy().warm_keep_ns;
    const bool one_too_many = static_cast<int64_t>(core_.state().kept_vms.size()) > core_.policy().warm_vms;
    if (closing_ || over || one_too_many || vm.state != VmState::kKept || core_.is_leaving(id)) end(id);
  }
}

void WarmPool::end(const std::string& vm) {
  const auto again = ending_.find(vm);
  if (again != ending_.end() && core_.monotonic_ns() < again->second) return;
  ending_[vm] = INT64_MAX;
  end_vm(core_, vm, [this, vm](const Status& removed) {
    if (!removed) {
      log_warn("VM {}: could not be deleted: {}; trying again", vm, removed.error().message);
      ending_[vm] = core_.monotonic_ns() + kSecond;
      return;
    }
    ending_.erase(vm);
    core_.stage(ledger::VmDeleted{vm});
    core_.node_launcher().on_vm_lost(vm, "node " + vm + " was deleted");
  });
}

}  // namespace th::control
