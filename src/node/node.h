#pragma once
// The life of a node: validate, then run what the controller wants and tell it what became of it
// (docs/node.md).

#include "base/result.h"
#include "node/config.h"

namespace th::node {

/// Runs until SIGTERM, SIGINT, or until the controller no longer knows the VM; no rank is left then. Call on
/// the main thread, whose end kills the ranks, before any other thread is started: it blocks signals for the
/// process. Errors: what keeps it from starting (folders, the user of the ranks).
Status run_node(const NodeConfig& config);

}  // namespace th::node
