#pragma once
// The fleet as a page draws it: what never changes once, what changes in a few bytes a host. Thread: the loop
// only.

#include <memory>
#include <string>

#include "control/controller.h"

namespace th::control {

/// GET /api/v1/fleet/map: {"name", "gpus", "racks": [{"id", "leaf", "spine", "site", "row", "series",
/// "gpus_per_host", "power_budget_w", "hosts": [ids]}]}; the same for as long as the daemon runs. Cost:
/// O(hosts).
std::string fleet_map_text(const Controller& c);

/// GET /api/v1/fleet/use, hosts and racks in the order of the map: {"seq", "time_ns", "gpus", "gpus_used",
/// "hosts": one letter each, "gpus_by_host": one digit each in base 36 (z: 35 and more), "rack_power_w":
/// [...]}. Letters: f free, u used by a node that is ready, s used and its node is not ready yet, x its node
/// is down, d drained, l free and a lemon. Cost: O(hosts log claims); kept while neither the ledger nor the
/// second changes.
class FleetUse {
 public:
  std::shared_ptr<const std::string> text(const Controller& c);

 private:
  int64_t version_ = -1, second_ = -1;
  std::shared_ptr<const std::string> text_;
};

/// GET /api/v1/hosts/{host}: where it is, its power, its node, and for each GPU the slice and the jobs on it;
/// those that `may_see` says no to (by the account of their owner) are told as taken, without a name. Errors:
/// kNotFound.
Result<Json> host_view(const Controller& c, const std::string& host,
                       const std::function<bool(const ledger::Owner&)>& may_see);

}  // namespace th::control
