#pragma once
// What a place costs, as docs/design/0005-placement.md writes it: the one number that placement minimises.

#include "reserve/reserve.h"

namespace th::reserve {

// Packed: near together, and large holes left whole.
inline constexpr int64_t kSpineCost = 1000;  // each spine that the gang lies below
inline constexpr int64_t kLeafCost = 100;    // each leaf
inline constexpr int64_t kDomainCost = 50;   // each NVLink domain, where one is larger than a host
inline constexpr int64_t kLemonCost = 20;    // each host that fails too often
inline constexpr int64_t kLeftOverCost = 1;  // each host that stays free on a leaf of the gang
// Spread: one fault takes few hosts.
inline constexpr int64_t kMostOnLeafCost = 1000;  // each host on the leaf that has most of the gang
inline constexpr int64_t kMostInRackCost = 100;   // each host in the rack that has most of it

struct PlaceCost {
  int32_t spines = 0;
  int32_t leaves = 0;
  int32_t domains = 0;  // 0: they are not larger than a host
  int32_t lemons = 0;
  int64_t left_over = 0;  // hosts (GPUs inside of a slice) that could still be taken on its leaves
  int64_t most_on_leaf = 0;
  int64_t most_in_rack = 0;
  int64_t total = 0;  // what the request's layout adds up
};

/// The hosts must be free in the plan's window on this snapshot, which does not have the plan in it.
PlaceCost place_cost(const Snapshot& snapshot, const Request& request, const Plan& plan);

}  // namespace th::reserve
