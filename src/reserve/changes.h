#pragma once
// What would start a request that cannot start: each change is tried before it is told.

#include <vector>

#include "reserve/explain.h"

namespace th::reserve::detail {

/// Changes to the request, hosts, power and claims, smallest first; those that end a claim of somebody else
/// last. Cost: O(fleet × log duration + claims × leaf).
std::vector<Change> find_changes(const Ask& ask);

}  // namespace th::reserve::detail
