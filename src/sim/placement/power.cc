#include "sim/placement/power.h"

#include <algorithm>
#include <utility>

#include "reserve/defrag.h"

namespace th::sim {

Result<PowerResult> run_power(std::string_view preset, const fleet::RackOptions& racks, double load,
                              uint64_t seed) {
  TH_TRY(fleet::Fleet made, fleet::preset_fleet(preset, racks));
  auto fleet = std::make_shared<const fleet::Fleet>(std::move(made));
  const fleet::Series& series = fleet->series_of(0);
  PowerResult result;
  result.racks = static_cast<int64_t>(fleet->racks().size());
  result.gpus = fleet->num_gpus(*fleet::find_series(series.name));
  result.rack_budget_w = fleet->rack(0).power_budget_w;
  result.hosts_per_rack = fleet->rack(0).num_hosts;
  for (const fleet::Rack& rack : fleet->racks()) {
    int64_t hosts = std::min<int64_t>(rack.num_hosts, rack.power_budget_w / series.host_full_w());
    result.gpus_usable += hosts * series.gpus_per_host;
    result.budget_w += rack.power_budget_w;
    result.stranded_w += rack.power_budget_w - hosts * series.host_full_w();
  }
  Load gangs(fleet, series.name, seed);
  Prng sizes(seed);
  const auto goal = static_cast<int64_t>(load * static_cast<double>(result.gpus));
  while (result.offered_gpus < goal) {
    int64_t per_host = series.gpus_per_host;
    int64_t gpus = (draw_philly_gpus(sizes) + per_host - 1) / per_host * per_host;
    result.offered_gpus += gpus;
    ++result.offered;
    // A fleet that refuses one host refuses every gang.
    bool is_full = gangs.gpus_taken() >= result.gpus_usable;
    if (is_full || !gangs.add(gpus)) ++result.refused;
  }
  result.placed_gpus = gangs.gpus_taken();
  for (const fleet::Site& site : fleet->sites()) {
    result.power_used_w +=
        gangs.snapshot().site_power_w(static_cast<fleet::SiteIndex>(&site - fleet->sites().data()), 0);
  }
  result.fragmentation = reserve::fragmentation(gangs.snapshot(), 0).share;
  result.racks_map = rack_cells(gangs.snapshot());
  result.log_hash = gangs.log_hash();
  for (int64_t size = series.gpus_per_host; size <= result.gpus; size *= 2) {
    if (!gangs.fits(size)) break;
    result.largest_gang = size;
  }
  return result;
}

}  // namespace th::sim
