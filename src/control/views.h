#pragma once
// The state as REST shows it (docs/api.md). Pure reading; thread: the loop only.

#include <string>
#include <vector>

#include "base/json.h"
#include "control/controller.h"
#include "registry/stack.h"

namespace th::control {

Json fleet_json(const Controller& c);
Json offer_json(const Controller& c, const Offer& offer);
Json stack_json(const registry::Stack& stack);
Json slice_json(const Controller& c, const ledger::Slice& slice);
Json estimate_json(const Controller& c, const Estimate& estimate);
Json job_json(Controller& c, const ledger::Job& job);
Json node_json(const Controller& c, const ledger::Vm& vm);
Json model_json(const ledger::ModelRegistered& model);
Json data_set_json(const ledger::DataSetAdded& set);
Json deployment_json(const Controller& c, const ledger::Deployment& deployment);
Json key_json(const Controller& c, const ledger::Key& key);
Json usage_json(const Controller& c);
/// By account, in the policy's order: limits, what is in use, fair share, cost.
std::vector<Json> accounts_json(const Controller& c);
Json reservation_json(const ledger::ReservationCreated& reservation);
/// Errors: kNotFound.
Result<Json> why_json(Controller& c, const std::string& subject);
/// The Prometheus text format. Without names: deployments are told as one, "all".
std::string prometheus_text(const Controller& c, bool with_names);

/// held | starting | ready | degraded | releasing | released | failed | expired.
std::string slice_state(const Controller& c, const ledger::Slice& slice);
/// What it cost up to now.

}  // namespace th::control
