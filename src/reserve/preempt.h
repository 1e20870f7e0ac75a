#pragma once
// Who makes room for a request: whole gangs, least important and least work lost first, all of them or none.

#include <vector>

#include "reserve/queue.h"

namespace th::reserve::detail {

struct RoomAsk {
  const QueueInput& input;
  const Pending& pending;
  int64_t priority = 0;
  const Snapshot& snapshot;  // with what goes before
  const Accounts& accounts;
  const std::vector<Preemption>& given;  // notices of this look so far
  int64_t fleet_gpus = 0;
};

int64_t gpus_in(const Claim& claim);

/// When a job that is given notice now has to be gone, by its QOS.
int64_t end_of_notice(const QueueInput& input, const Running& running);

/// Enough to start the request when the last of them is gone, and no fewer would do: with any one of them
/// left, it would not start when the last of the others is gone. May be stopped: what is preemptible, has run its QOS' min_run, has no notice yet, and
/// either is of a QOS that the request's preempts and, where it comes back, of a lower priority, or uses
/// quota borrowed from the request's account. Order: QOS priority, GPU time since the last checkpoint, the
/// latest start. Empty: there are none. Cost: O(log running + victims) decides.
std::vector<const Running*> choose_victims(const RoomAsk& ask);

}  // namespace th::reserve::detail
