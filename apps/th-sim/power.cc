// th-sim power: one load on air-cooled racks, on the racks of the preset and on re-planned ones.

#include "sim/placement/power.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "command.h"

namespace th {
namespace {

Json json_of(const sim::PowerResult& result) {
  return {{"rack_budget_w", result.rack_budget_w},
          {"racks", result.racks},
          {"gpus", result.gpus},
          {"gpus_usable", result.gpus_usable},
          {"budget_w", result.budget_w},
          {"stranded_power_w", result.stranded_w},
          {"power_used_w", result.power_used_w},
          {"offered_gpus", result.offered_gpus},
          {"placed_gpus", result.placed_gpus},
          {"share_placed", result.share_placed()},
          {"gangs_refused", result.refused},
          {"largest_gang_left_gpus", result.largest_gang},
          {"fragmentation", result.fragmentation},
          {"log_hash", fmt::format("{:016x}", result.log_hash)}};
}

class Power : public Command {
 public:
  const char* name() const override { return "power"; }
  const char* help() const override { return "Compare air-cooled with re-planned racks under one load"; }
  const char* example() const override { return "th-sim power --preset hyperscale-131k --json"; }
  void add_flags(Flags& flags) override {
    flags.add("--preset", preset_, "the fleet: openai-2020, voyager-eus2, eagle or hyperscale-131k");
    flags.add("--load", load_, "GPUs that are asked for, as a part of all");
    flags.add("--air-cooled-w", air_cooled_w_, "watts of an air-cooled rack");
    flags.add("--replanned-w", replanned_w_, "watts of a re-planned rack; 0: enough for all its hosts");
    flags.add("--hosts-per-rack", hosts_per_rack_, "hosts that stand in a rack of either kind");
  }

  Result<Json> run(const Common& common, bool&) override {
    if (!(load_ >= 0 && load_ <= 4) || air_cooled_w_ < 1 || replanned_w_ < 0 || hosts_per_rack_ < 1 ||
        hosts_per_rack_ > 64) {
      return fail(Code::kInvalidArgument,
                  "want --load from 0 to 4, watts above 0, and --hosts-per-rack 1 to 64");
    }
    auto seed = static_cast<uint64_t>(common.seed);
    auto hosts = static_cast<int32_t>(hosts_per_rack_);
    TH_TRY(fleet::Fleet fleet, fleet::preset_fleet(preset_));
    int64_t enough_w = replanned_w_ > 0 ? replanned_w_ : hosts * fleet.series_of(0).host_full_w();
    TH_TRY(sim::PowerResult air, sim::run_power(preset_, {hosts, air_cooled_w_}, load_, seed));
    TH_TRY(sim::PowerResult as_built, sim::run_power(preset_, {}, load_, seed));
    TH_TRY(sim::PowerResult replanned, sim::run_power(preset_, {hosts, enough_w}, load_, seed));
    Json result = {{"preset", preset_}, {"load", load_}};
    result["air_cooled"] = json_of(air);
    result["as_built"] = json_of(as_built);
    result["replanned"] = json_of(replanned);
    result["gpus_usable_gained"] = replanned.gpus_usable - air.gpus_usable;
    result["placed_gpus_gained"] = replanned.placed_gpus - air.placed_gpus;
    // In a room that stays air-cooled the hosts would have to be spread over more racks.
    int64_t per_rack = std::max<int64_t>(1, air_cooled_w_ / fleet.series_of(0).host_full_w());
    auto num_hosts = static_cast<int64_t>(fleet.hosts().size());
    result["air_cooled_racks_for_all_hosts"] = (num_hosts + per_rack - 1) / per_rack;
    result["log_hash"] =
        fmt::format("{:016x}", air.log_hash ^ as_built.log_hash * 3 ^ replanned.log_hash * 7);
    if (!common.report.empty()) TH_RETURN_IF_ERROR(write(common, result, std::move(air.racks_map)));
    return result;
  }

 private:
  Status write(const Common& common, const Json& result, std::vector<sim::RackCell> racks) const {
    sim::Report report;
    report.title = fmt::format("Power of racks on {}: air-cooled, {} W a rack", preset_, air_cooled_w_);
    report.command = fmt::format("th-sim power --preset {} --load {} --seed {}", preset_, load_, common.seed);
    for (const char* kind : {"air_cooled", "as_built", "replanned"}) {
      for (const char* key : {"gpus_usable", "stranded_power_w", "share_placed", "fragmentation"}) {
        report.figures.emplace_back(fmt::format("{} {}", kind, key), dump_json(result[kind][key]));
      }
    }
    report.racks = std::move(racks);
    return sim::write_report(report, common.report);
  }

  std::string preset_ = "hyperscale-131k";
  double load_ = 0.9;
  int64_t air_cooled_w_ = 12'500, replanned_w_ = 0, hosts_per_rack_ = 4;
};

}  // namespace

std::unique_ptr<Command> make_power_command() { return std::make_unique<Power>(); }

}  // namespace th
