#pragma once
// From the hosts that were found to the plan: spares, placement groups, price, words.

#include <vector>

#include "reserve/explain.h"

namespace th::reserve::detail {

/// `hosts`: what place() returned for the ask, not empty.
Plan make_plan(const Ask& ask, std::vector<HostGpus> hosts);

}  // namespace th::reserve::detail
