#include "fleet/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"

namespace th::fleet {
namespace {

constexpr std::array<Preset, 4> kPresets = {{
    {"openai-2020", "the machine that Microsoft built for OpenAI: 10,000 GPUs, 285,000 CPU cores",
     "datacenterdynamics.com, \"Microsoft reveals immense cloud supercomputer just for OpenAI\", May 2020: "
     "285,000 "
     "CPU cores, 10,000 GPUs, 400 Gb/s for each GPU server",
     "8 GPUs a server, 20 servers a leaf (40 HDR ports, half of them down), 4 servers a rack", 285'000},
    {"voyager-eus2", "Voyager-EUS2: 264 VMs of 8 A100",
     "TOP500, November 2021: rank 10, 30.05 Pflop/s, 253,440 cores. Its counts include the multiprocessors "
     "of GPUs: "
     "253,440 / (96 + 8 x 108) = 264 VMs",
     "A100 of 80 GB (unverified); scalable units of 20 systems as in NVIDIA's A100 SuperPOD (unverified); 4 "
     "VMs a "
     "rack",
     264 * 96},
    {"eagle", "Eagle: 14,400 H100 in 1,800 ND H100 v5 VMs",
     "TOP500, November 2023: rank 3, 561.2 Pflop/s, 1.12 million cores; baxtel.com: 14,400 H100",
     "scalable units of 32 VMs and racks of 4 at 40.8 kW, as NVIDIA publishes them for DGX H100", 1800 * 96},
    {"hyperscale-131k", "131,072 GPUs on 16,384 hosts, 8 rails, re-planned racks beside air-cooled rows",
     "NVIDIA DGX SuperPOD reference architecture (scalable units of 32 systems, 8 rails; 64 units: 512 leaf, "
     "512 "
     "spine, 256 core switches) and its data-center design (DGX H100: 10.2 kW, 4 a rack at 40.8 kW, older "
     "rooms "
     "10 to 15 kW a rack)",
     "each of the 8 rails is one such fabric of 16,384 ports, so 8 times the switches; 384 units in racks of "
     "4, "
     "128 in air-cooled racks of one host at 12.5 kW, 16 a row",
     16'384 * 96},
}};

/// The racks of some scalable units.
struct RackPlan {
  int32_t hosts_per_rack = 4;
  int64_t power_budget_w = 40'800;
  int32_t racks_per_row = 8;
};

struct FabricPlan {
  const char* name = "";
  const char* series = "";
  int32_t num_hosts = 0;
  int32_t hosts_per_leaf = 32;
  int32_t leaves_per_spine = 32;  // 32 leaf switches of a rail below 32 spine switches of 64 ports each
  int32_t num_rails = 8;          // leaf switches of a unit
  int32_t spines_per_leaf = 8;    // spine and half as many core switches for each unit
  RackPlan racks;
  RackPlan air_cooled = {1, 12'500, 16};
  int32_t first_air_cooled_leaf = INT32_MAX;
};

class Builder {
 public:
  explicit Builder(const FabricPlan& plan) : plan_(plan), series_(*find_series(plan.series)) {}

  Fleet build() {
    parts_.name = plan_.name;
    parts_.sites.push_back({plan_.name});
    int32_t num_leaves = (plan_.num_hosts + plan_.hosts_per_leaf - 1) / plan_.hosts_per_leaf;
    int32_t num_spines = (num_leaves + plan_.leaves_per_spine - 1) / plan_.leaves_per_spine;
    if (num_spines > 1)
      parts_.switches.push_back({"core", SwitchTier::kCore, -1, num_leaves * plan_.spines_per_leaf / 2});
    for (int32_t spine = 0; spine < num_spines; ++spine) {
      int32_t first = spine * plan_.leaves_per_spine;
      add_spine(spine, first, std::min(num_leaves, first + plan_.leaves_per_spine));
    }
    return Fleet(std::move(parts_));
  }

 private:
  void add_spine(int32_t index, int32_t first_leaf, int32_t end_leaf) {
    auto spine = static_cast<SwitchIndex>(parts_.switches.size());
    int32_t count = (end_leaf - first_leaf) * plan_.spines_per_leaf;
    parts_.switches.push_back({fmt::format("p{}", index), SwitchTier::kSpine, -1, count});
    const Series& series = series_catalogue()[static_cast<size_t>(series_)];
    int64_t host_bytes_per_s = series.gpus_per_host * series.gpu_infiniband_bit_per_s / 8;
    if (spine > 0 && parts_.switches[0].tier == SwitchTier::kCore) {
      parts_.links.push_back({spine, 0, host_bytes_per_s * plan_.hosts_per_leaf * (end_leaf - first_leaf)});
    }
    for (int32_t leaf = first_leaf; leaf < end_leaf; ++leaf) {
      auto leaf_switch = static_cast<SwitchIndex>(parts_.switches.size());
      parts_.switches.push_back({fmt::format("su{}", leaf), SwitchTier::kLeaf, spine, plan_.num_rails});
      parts_.links.push_back({leaf_switch, spine, host_bytes_per_s * plan_.hosts_per_leaf});
      add_racks(leaf, leaf_switch);
    }
  }

  void add_racks(int32_t leaf, SwitchIndex leaf_switch) {
    const RackPlan& racks = leaf >= plan_.first_air_cooled_leaf ? plan_.air_cooled : plan_.racks;
    int32_t hosts = std::min(plan_.hosts_per_leaf, plan_.num_hosts - leaf * plan_.hosts_per_leaf);
    for (int32_t r = 0; r * racks.hosts_per_rack < hosts; ++r) {
      if (r % racks.racks_per_row == 0) {
        parts_.rows.emplace_back().id = fmt::format("su{}w{}", leaf, r / racks.racks_per_row);
      }
      parts_.rows.back().power_budget_w += racks.power_budget_w;
      Rack rack;
      rack.id = fmt::format("su{}r{}", leaf, r);
      rack.row = static_cast<RowIndex>(parts_.rows.size() - 1);
      rack.leaf_switch = leaf_switch;
      rack.power_budget_w = racks.power_budget_w;
      for (int32_t h = 0; h < std::min(racks.hosts_per_rack, hosts - r * racks.hosts_per_rack); ++h) {
        Host host;
        host.id = fmt::format("{}h{}", rack.id, h);
        host.rack = static_cast<RackIndex>(parts_.racks.size());
        host.series = series_;
        parts_.hosts.push_back(std::move(host));
      }
      parts_.racks.push_back(std::move(rack));
    }
  }

  const FabricPlan& plan_;
  SeriesIndex series_;
  FleetParts parts_;
};

FabricPlan plan_of(std::string_view name) {
  FabricPlan plan;
  if (name == "openai-2020") {
    plan.series = "OPENAI_2020", plan.num_hosts = 1250, plan.hosts_per_leaf = 20;
    plan.leaves_per_spine = 20, plan.num_rails = 1, plan.spines_per_leaf = 1;
    plan.racks.power_budget_w = 4 * 3500;
  } else if (name == "voyager-eus2") {
    plan.series = "NDm_A100_v4", plan.num_hosts = 264, plan.hosts_per_leaf = 20, plan.leaves_per_spine = 20;
    plan.racks.power_budget_w = 4 * 6500;
  } else if (name == "eagle") {
    plan.series = "ND_H100_v5", plan.num_hosts = 1800;
  } else {
    plan.series = "ND_H100_v5", plan.num_hosts = 16'384, plan.first_air_cooled_leaf = 384;
  }
  return plan;
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

Result<Fleet> preset_fleet(std::string_view name, const RackOptions& racks) {
  auto found = std::ranges::find(kPresets, name, &Preset::name);
  if (found == kPresets.end()) {
    std::vector<std::string> names;
    for (const Preset& preset : kPresets) names.emplace_back(preset.name);
    std::string hint = did_you_mean(name, names);
    if (hint.empty()) hint = "; known: " + join(names, ", ");
    return fail(Code::kNotFound, fmt::format("there is no preset '{}'{}", name, hint));
  }
  if (racks.hosts_per_rack < 0 || racks.power_budget_w < 0) {
    return fail(Code::kInvalidArgument, "hosts and watts of a rack must not be negative");
  }
  FabricPlan plan = plan_of(name);
  plan.name = found->name;
  if (racks.hosts_per_rack > 0 || racks.power_budget_w > 0) plan.first_air_cooled_leaf = INT32_MAX;
  if (racks.hosts_per_rack > 0) plan.racks.hosts_per_rack = racks.hosts_per_rack;
  if (racks.power_budget_w > 0) plan.racks.power_budget_w = racks.power_budget_w;
  return Builder(plan).build();
}

}  // namespace th::fleet
