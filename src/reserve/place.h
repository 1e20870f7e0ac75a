#pragma once
// Where a gang goes: the cheapest place in the written objective that was found, and whether there is one at
// all.

#include <optional>
#include <vector>

#include "reserve/room.h"

namespace th::reserve::detail {

/// What a request comes to in units (room.h).
struct Demand {
  int64_t units = 0;
  int64_t block = 1;  // units that stay together on a leaf; divides `units`
  size_t max_leaves = SIZE_MAX;
  Layout layout = Layout::kPack;
};

/// The most units (a multiple of the block) that one site gives on so many leaves, lemons too. Exact.
int64_t most_units(Query query, const Demand& demand);
std::vector<int64_t> most_units_by_site(Query query, const Demand& demand);

/// The GPUs that a gang gets, ascending; empty exactly when most_units() < units. Cost: O(leaf) where one
/// leaf has enough hosts and no claim begins later or ended before, else O(leaves × leaves taken), and
/// O(claims) where claims do not overlap the window or power can run short.
std::vector<HostGpus> place(const Query& query, const Demand& demand);

/// Earliest start in [from_ns, last_ns] at which the gang fits for `duration_ns`; nullopt when there is none.
/// The query's own window is not used. Cost: O(fleet + claims × (leaf + leaves)).
std::optional<int64_t> earliest_start(Query query, const Demand& demand, int64_t duration_ns, int64_t from_ns,
                                      int64_t last_ns);

}  // namespace th::reserve::detail
