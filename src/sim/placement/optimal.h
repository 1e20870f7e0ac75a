#pragma once
// How far from the best place the engine's lies: small random cases against every set of hosts there is.

#include <cstdint>
#include <string>

namespace th::sim {

struct OptimalResult {
  int64_t cases = 0, placed = 0;             // placed: by trying every set of hosts
  int64_t missed = 0;                        // it finds a place, and the engine does not
  int64_t unsound = 0;                       // the engine's place breaks a limit, or none exists
  int64_t exact = 0;                         // as cheap as the best
  double mean_gap_pct = 0, max_gap_pct = 0;  // over the placed ones, in the written objective
  uint64_t log_hash = 0;                     // of the engine's places
  std::string worst;                         // the case with the largest gap, in words; empty: none has one
};

/// Fleets of up to 13 hosts with one or two spines, rows and sites with budgets, power caps, drains, lemons
/// and claims; gangs packed or spread, with switches, segments and spares. Pure. Cost: some milliseconds a
/// case.
OptimalResult run_optimal(int64_t cases, uint64_t seed);

}  // namespace th::sim
