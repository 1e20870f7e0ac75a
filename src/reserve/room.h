#pragma once
// How much could be taken in a window, rack by rack and leaf by leaf, as things stand or as they might.
// Room is counted in units: whole hosts on a fleet's snapshot and where each host gives so many GPUs, else
// GPUs.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "reserve/reserve.h"
#include "reserve/select.h"
#include "reserve/tree.h"

namespace th::reserve::detail {

/// What is looked for, and what to look away from.
struct Query {
  const Root& root;
  fleet::SeriesIndex series = -1;  // -1: any (slices only)
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t gpus_per_host = 0;  // slices: a unit is a host that has so many; 0: a unit is a GPU
  bool use_lemons = false;
  bool ignore_claims = false;
  bool ignore_drains = false;
  bool ignore_power = false;
  const Claim* without = nullptr;                // as if this one were gone
  std::span<const PowerRaise> raises = {};       // as if these budgets were larger
  const std::vector<HostIndex>* only = nullptr;  // ascending: no other hosts; null: all
};

/// The GPUs of a host that a unit of it would get: on a fleet all or none.
GpuMask free_gpus(const Query& query, HostIndex host);

/// Watts of some racks over time, of the claims that the query sees. Cost: O(claims log claims), then O(log).
class PowerProfile {
 public:
  PowerProfile(const Query& query, std::span<const RackIndex> racks);
  /// Most watts drawn at any time of the window.
  int64_t peak_w(int64_t start_ns, int64_t end_ns) const;

 private:
  std::vector<int64_t> times_ns_;
  std::vector<std::vector<int64_t>> most_w_;  // [k][i]: from times_ns_[i] on, over 2^k steps
};
PowerProfile site_profile(const Query& query, fleet::SiteIndex site);

/// Units of a leaf, by rack; rows below the leaf whose power can run short are its groups. `free` is by rack
/// too, power not counted.
struct RackRooms {
  Bins bins;
  std::vector<int64_t> free;
};
RackRooms rack_rooms(const Query& query, const Page& page, fleet::LeafIndex leaf);

/// Units of a leaf, power of racks and of rows below it counted. Cost: O(hosts + claims), more where power
/// can run short.
int64_t page_room(const Query& query, const Page& page, fleet::LeafIndex leaf);
/// The same; O(1) where all claims overlap the window. 0 when the leaf is absent.
int64_t leaf_room(const Query& query, fleet::LeafIndex leaf);

/// Watts that new claims may add in the window below the budgets of a row and of a site (its own and its
/// caps); kNoLimit where they cannot run short.
int64_t row_left_w(const Query& query, fleet::RowIndex row, const PowerProfile* profile = nullptr);
int64_t site_left_w(const Query& query, fleet::SiteIndex site, const PowerProfile* profile = nullptr);
/// Whether a budget of the site or a cap may bind.
bool site_can_run_short(const Root& root, fleet::SiteIndex site);
/// Watts of a unit of the query.
int64_t unit_w(const Query& query);

/// Units by leaf; the groups are the rows that leaves share. `all_left` is by site, set by `in_site`.
struct Rooms {
  Bins leaves;
  std::vector<int64_t> site_left;

  /// The bins with the limit of one site.
  const Bins& in_site(fleet::SiteIndex site);
};
Rooms find_rooms(const Query& query, int64_t block);

/// The leaves of a site, of a spine.
std::vector<int32_t> leaves_of(const Fleet& fleet, fleet::SiteIndex site);

/// Takes `units` below one leaf into `hosts`, ascending; they must be there. `max_in_rack`: 0: any number.
void take_from_leaf(const Query& query, fleet::LeafIndex leaf, int64_t units, int64_t max_in_rack,
                    std::vector<HostGpus>& hosts);

}  // namespace th::reserve::detail
