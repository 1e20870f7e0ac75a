#pragma once
// What re-planning racks for power buys: the same hosts and the same gangs on rows of different budgets.

#include <string_view>
#include <vector>

#include "base/result.h"
#include "fleet/presets.h"
#include "sim/placement/load.h"

namespace th::sim {

struct PowerResult {
  int64_t rack_budget_w = 0;
  int32_t hosts_per_rack = 0;
  int64_t racks = 0, gpus = 0;
  int64_t gpus_usable = 0;  // that the budgets can run at once
  int64_t budget_w = 0;     // of all racks
  int64_t stranded_w = 0;   // of it, that no whole host can use
  int64_t offered_gpus = 0, placed_gpus = 0, offered = 0, refused = 0;
  int64_t largest_gang = 0;  // GPUs of the largest gang of a power of two that still starts after the load
  int64_t power_used_w = 0;
  double fragmentation = 0;
  uint64_t log_hash = 0;
  std::vector<RackCell> racks_map;

  double share_placed() const {
    return offered_gpus == 0 ? 0 : static_cast<double>(placed_gpus) / static_cast<double>(offered_gpus);
  }
};

/// Offers gangs of Philly's sizes, the same sequence for the same seed, until they come to `load` (part of
/// all GPUs of the preset). `racks`: as preset_fleet takes them. Errors: those of preset_fleet.
Result<PowerResult> run_power(std::string_view preset, const fleet::RackOptions& racks, double load,
                              uint64_t seed);

}  // namespace th::sim
