#pragma once
// Fleets made from published facts, each named with its source; what is assumed says so.

#include <span>

#include "fleet/fleet.h"

namespace th::fleet {

struct Preset {
  const char* name;
  const char* what;
  const char* source;      // of the counts
  const char* assumption;  // what is not published and was chosen here
  int64_t cpu_cores;       // published; 0: not
};
std::span<const Preset> presets();

/// Other racks for the same hosts, to see what re-planning buys. 0: as the preset has them.
struct RackOptions {
  int32_t hosts_per_rack = 0;
  int64_t power_budget_w = 0;
};

/// Ids: spine p0, leaf su3, row su3w0, rack su3r1, host su3r1h2. A leaf stands for the rail switches of one
/// scalable unit. Errors: kNotFound, with the nearest name. Cost: O(hosts).
Result<Fleet> preset_fleet(std::string_view name, const RackOptions& racks = {});

}  // namespace th::fleet
