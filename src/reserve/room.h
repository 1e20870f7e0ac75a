#pragma once
// How many GPUs could be taken in a window, rack by rack and leaf by leaf, as things stand or as they might.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "reserve/reserve.h"
#include "reserve/tree.h"

namespace th::reserve::detail {

/// What is looked for, and what to look away from.
struct Query {
  const Root& root;
  fleet::SeriesIndex series = -1;  // -1: any (slices only)
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  bool ignore_claims = false;
  bool ignore_drains = false;
  bool ignore_power = false;
  const Claim* without = nullptr;           // as if this one were gone
  std::span<const PowerRaise> raises = {};  // as if these racks had more power
};

inline constexpr int64_t kAlwaysStart = std::numeric_limits<int64_t>::min();
inline constexpr int64_t kAlwaysEnd = std::numeric_limits<int64_t>::max();

/// The GPUs of a host that are free over the whole window: on a fleet all or none.
GpuMask free_gpus(const Query& query, const Page& page, HostIndex host);

/// Most watts that the rack draws at any time of the window. Cost: O(claims log claims) of the rack.
int64_t peak_power_w(const Query& query, const Page& page, RackIndex rack);

struct RackRoom {
  int64_t free_gpus = 0;  // power not counted
  int64_t gpus = 0;       // that may be taken
};
RackRoom rack_room(const Query& query, const Page& page, RackIndex rack);

/// GPUs that may be taken below one leaf. Cost: O(1) where nothing is claimed, else O(hosts + claims log
/// claims).
int64_t leaf_room(const Query& query, fleet::LeafIndex leaf);

/// By leaf, and summed by site.
std::vector<int64_t> leaf_rooms(const Query& query);
std::vector<int64_t> site_rooms(const Query& query);

/// Takes for bins with `room` so that they sum to `need` (<= the sum of room): from the one bin that fits it
/// with least left over, the first of equals; while none does, all of the largest and on with the rest. That
/// uses the fewest bins.
std::vector<int64_t> fewest_bins(std::span<const int64_t> room, int64_t need);

/// The GPUs that a gang of `need` gets, ascending; empty when there is no room. Cost: O(fleet).
std::vector<HostGpus> place(const Query& query, int64_t need);

/// As place(), for all time and on one leaf only, of those with clear hosts that with the fewest. Cost:
/// O(leaf).
std::vector<HostGpus> place_clear(const Root& root, fleet::SeriesIndex series, int64_t need);

/// Earliest start in [from_ns, last_ns] at which `need` GPUs of one site are free for `duration_ns`; nullopt
/// when there is none. The query's own window is not used. Cost: O(fleet + claims × leaf).
std::optional<int64_t> earliest_start(Query query, int64_t need, int64_t duration_ns, int64_t from_ns,
                                      int64_t last_ns);

}  // namespace th::reserve::detail
