#pragma once
// What the caller (Core::who) may see and change: the things of its tenant and of those below it. What it may
// not see does not exist for it. The loop itself sees everything. Thread: the loop only.

#include <string>

#include "base/json.h"
#include "control/core.h"

namespace th::control {

bool sees(const Core& core, const ledger::Owner& owner);
bool sees(const Core& core, const ledger::Vm& vm);
bool sees(const Core& core, const ledger::Deployment& deployment);
/// Of the job that made it; by path: everybody's.
bool sees(const Core& core, const ledger::ModelRegistered& model);
/// Named for an account or a name of the caller; maintenance: everybody's.
bool sees(const Core& core, const ledger::ReservationCreated& reservation);

/// Among those that the caller sees. By id, else the live one of that name, else the last one that had it;
/// null if none.
const ledger::Slice* find_slice(const Core& core, std::string_view name_or_id);
const ledger::Job* find_job(const Core& core, std::string_view id_or_name);
const ledger::Deployment* find_deployment(const Core& core, const std::string& name);
/// Its newest version that the caller sees.
const ledger::ModelRegistered* find_model(const Core& core, const std::string& name);
/// Names of accounts that the caller may name, in the policy's order.
std::vector<std::string> accounts_of(const Core& core);

/// A member changes what is its own, an operator what is anybody's of the tenant. Errors: kPermissionDenied.
Status check_may_change(const Core& core, const ledger::Owner& owner, const std::string& what);
/// What a job takes along from the state folder is a model that the caller sees, or a data set. Errors:
/// kPermissionDenied.
Status check_may_stage(const Core& core, const std::string& path);

/// Without the ids of jobs and slices and the names of reservations that the caller does not see.
std::string redacted(const Core& core, std::string text);
Json redacted(const Core& core, Json answer);
Error redacted(const Core& core, Error error);

}  // namespace th::control
