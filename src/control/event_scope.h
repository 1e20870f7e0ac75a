#pragma once
// Which events a caller is told of, and what of them. Thread: the loop only.

#include <string>

#include "control/controller.h"

namespace th::control {

/// Those of the things it sees, and those of the fleet, stacks and data sets, which are everybody's. Of
/// users, keys, tenants and invitations: an admin of their tenant. What is of no tenant: the platform.
bool sees(const Controller& c, const ledger::Entry& entry);
/// {"time_ns", …fields}, without the hashes of secrets, the specs of jobs (they may be as long as a request),
/// and ids of what the caller does not see.
std::string event_data(const Controller& c, const ledger::Entry& entry);

}  // namespace th::control
