#pragma once
// The end of a VM. Thread: the loop only.

#include <functional>
#include <string>

#include "control/core.h"

namespace th::control {

/// Ends the VM, writes down what the cloud bills it for, and then removes it; `done` gets the outcome, on the
/// loop. To be called again when it fails.
void end_vm(Core& core, const std::string& vm, std::function<void(const Status&)> done);

}  // namespace th::control
