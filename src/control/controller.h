#pragma once
// The parts of the control plane and the order in which they move: what the daemon and the simulator both
// drive. Thread: the loop only.

#include "control/access.h"
#include "control/core.h"
#include "control/data_sets.h"
#include "control/deployments.h"
#include "control/execs.h"
#include "control/job_output.h"
#include "control/jobs.h"
#include "control/models.h"
#include "control/node_checks.h"
#include "control/nodes.h"
#include "control/notices.h"
#include "control/slices.h"
#include "control/timeline.h"

namespace th::control {

class Controller {
 public:
  /// Brings the parts to where the ledger says they were: before any node is heard.
  static Result<std::unique_ptr<Controller>> start(CoreParts parts);

  /// After each batch of commands and results: moves everything on, commits, then lets the effects out.
  /// Errors: of the commit; nothing of it was seen outside, the next step tries again.
  Status step();
  /// Called for each entry once it is durable.
  std::function<void(const ledger::Entry&)> on_committed;

  Core core;
  Access access;
  JobOutput output;
  NodeChecks checks;
  Slices slices;
  Models models;
  DataSets data_sets;
  Jobs jobs;
  Execs execs;
  Nodes nodes;
  Notices notices;
  Deployments deployments;
  Timeline timeline;

 private:
  explicit Controller(CoreParts parts);
};

}  // namespace th::control
