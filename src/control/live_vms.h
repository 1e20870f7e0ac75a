#pragma once
// Which VMs of a slice are there. Thread: the loop only.

#include <map>
#include <string>
#include <string_view>

#include "ledger/state.h"

namespace th::control {

/// The VMs of a slice that are not down or deleted, by host; where a host has two, the later one. Cost:
/// O(VMs).
std::map<std::string_view, const ledger::Vm*> live_vms(const ledger::State& state,
                                                       const ledger::Slice& slice);
/// The same of one host; null if none. Cost: O(VMs).
const ledger::Vm* live_vm(const ledger::State& state, const ledger::Slice& slice, const std::string& host);

}  // namespace th::control
