#pragma once
// How scattered what is free lies, and which jobs to move so that a gang gets a place, or a nearer one.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reserve/reserve.h"

namespace th::reserve {

struct Fragmentation {
  int64_t free_gpus = 0;        // of hosts that could be taken now, power of racks and rows counted
  int64_t whole_leaf_gpus = 0;  // of them on leaves that are free as a whole
  double share = 0;             // of free GPUs that are not: 0 nothing is scattered, 1 all of it
};
/// Of all series, at one instant, on a fleet's snapshot. Cost: O(hosts + claims).
Fragmentation fragmentation(const Snapshot& snapshot, int64_t time_ns);

/// A running gang that can checkpoint, start again elsewhere and go on.
struct Movable {
  Claim claim;
  int64_t move_ns = 0;  // time lost by one move: checkpoint, start, steps done again
};

struct DefragOptions {
  size_t max_moves = 8;
  int64_t wait_ns = 0;     // how long the gang would wait otherwise, where it does not start now
  int64_t switch_ppm = 0;  // what one leaf switch less saves of the gang's time, in millionths
};

struct Move {
  std::string claim;
  std::vector<HostGpus> from, to;
};

struct DefragPlan {
  std::vector<Move> moves;  // in this order: each place is free when its turn comes
  Plan gang;                // its place after the moves
  int64_t gain_gpu_ns = 0;  // GPU time won by the gang
  int64_t cost_gpu_ns = 0;  // GPU time lost by those that move
};

/// Moves that let the gang start now, or on fewer leaf switches, where that wins more GPU time than it costs;
/// nothing when none were found (not every set of moves is tried). A moved gang keeps its number of GPUs, its
/// window and, on a fleet, whole hosts of its series, on no more leaves than before. Pure. Cost: O(max_moves
/// × movables × decide).
std::optional<DefragPlan> plan_defrag(const Snapshot& snapshot, const Request& gang, const Policy& policy,
                                      int64_t now_ns, std::span<const Movable> movables,
                                      const DefragOptions& options);

}  // namespace th::reserve
