#pragma once
// Which leaves, and below a leaf which racks: bins with room, some of which share a power budget. Every set
// of limits here nests (bin, group, all), so taking the largest first is never wrong.

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace th::reserve::detail {

inline constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

/// Units are whole hosts on a fleet's snapshot. What is taken of a bin is a multiple of `block`.
struct Bins {
  std::vector<int64_t> room;
  std::vector<int32_t> group;       // of each bin, into group_left; -1: none. Empty: none has one
  std::vector<int64_t> group_left;  // what the bins of a group may take together
  int64_t all_left = kNoLimit;      // what all may take together
  int64_t block = 1;

  int64_t left(int32_t bin) const;
  void take(int32_t bin, int64_t units);
};

struct Take {
  int32_t bin = 0;
  int64_t units = 0;
};
using Takes = std::vector<Take>;

/// What a take costs beside the room that it leaves over in its bin; empty: nothing.
using TakeCost = std::function<int64_t(int32_t bin, int64_t units)>;

/// The most that `max_bins` of the bins give. Cost: O(bins × bins taken), O(bins) without a limit that binds.
int64_t most(const Bins& bins, std::span<const int32_t> among, size_t max_bins);

/// `need` from the fewest bins, at most max_bins; of sets of so many, one with little left over. Exact for
/// one bin and for few bins. Empty when there is no such set. need > 0, a multiple of the block.
Takes fewest(const Bins& bins, std::span<const int32_t> among, int64_t need, size_t max_bins,
             const TakeCost& cost = {});

/// Room left over in the bins taken from, and the cost of each take.
int64_t cost_of(const Bins& bins, const Takes& takes, const TakeCost& cost);

}  // namespace th::reserve::detail
