#pragma once
// The software suites that slices name: those that come with this version, and those that were added. Thread:
// the loop only.

#include <string>
#include <vector>

#include "control/core.h"
#include "registry/stack.h"

namespace th::control {

/// By name and version.
std::vector<registry::Stack> all_stacks(const ledger::State& state);

/// "train@1", or the newest of "train"; empty: base. Errors: kNotFound, naming those there are.
Result<registry::Stack> find_stack(const ledger::State& state, const std::string& name);

/// Takes a stack in; the same again is a success. Errors: those of parse_stack, kAlreadyExists (that version
/// has another content).
Result<registry::Stack> add_stack(Core& core, const std::string& yaml);

/// The shell command that a node runs before it is handed over; it writes why not to TH_METRICS. Empty: there
/// is nothing to look at.
std::string check_script(const registry::Stack& stack, int64_t nvidia_gpus);

}  // namespace th::control
