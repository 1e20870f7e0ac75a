#include "fleet/presets.h"

#include <gtest/gtest.h>

namespace th::fleet {
namespace {

Fleet preset(std::string_view name, const RackOptions& racks = {}) {
  auto fleet = preset_fleet(name, racks);
  EXPECT_TRUE(fleet.has_value()) << fleet.error().message;
  return *std::move(fleet);
}

int64_t switches_of(const Fleet& fleet, SwitchTier tier) {
  int64_t count = 0;
  for (const Switch& entry : fleet.switches()) count += entry.tier == tier ? entry.count : 0;
  return count;
}

// datacenterdynamics.com, May 2020: 285,000 CPU cores, 10,000 GPUs, 400 Gb/s a GPU server.
TEST(PresetTest, OpenAi2020) {
  Fleet fleet = preset("openai-2020");
  SeriesIndex index = *find_series("OPENAI_2020");
  const Series& series = series_catalogue()[static_cast<size_t>(index)];
  EXPECT_EQ(fleet.num_gpus(index), 10'000);
  EXPECT_EQ(static_cast<int64_t>(fleet.hosts().size()) * series.vcpus, 285'000);
  EXPECT_EQ(series.gpus_per_host * series.gpu_infiniband_bit_per_s, 400'000'000'000);
  EXPECT_EQ(fleet.leaves().size(), 63u);  // 1,250 / 20, rounded up
  EXPECT_EQ(fleet.leaf(62).num_hosts, 10);
}

// TOP500, November 2021: 253,440 cores, which are 96 CPU cores and 8 x 108 multiprocessors a VM.
TEST(PresetTest, VoyagerEus2) {
  Fleet fleet = preset("voyager-eus2");
  EXPECT_EQ(fleet.hosts().size(), 264u);
  EXPECT_EQ(fleet.num_gpus(*find_series("NDm_A100_v4")), 2112);
  EXPECT_EQ(static_cast<int64_t>(fleet.hosts().size()) * (96 + 8 * 108), 253'440);
  EXPECT_EQ(fleet.leaves().size(), 14u);
  EXPECT_EQ(fleet.spines().size(), 1u);
}

TEST(PresetTest, Eagle) {
  Fleet fleet = preset("eagle");
  EXPECT_EQ(fleet.hosts().size(), 1800u);
  EXPECT_EQ(fleet.num_gpus(*find_series("ND_H100_v5")), 14'400);
  EXPECT_EQ(fleet.leaves().size(), 57u);  // 56 units of 32, and 8 hosts
  EXPECT_EQ(fleet.leaf(56).num_hosts, 8);
  EXPECT_EQ(fleet.spines().size(), 2u);
  EXPECT_EQ(fleet.rack(0).power_budget_w, 40'800);
  EXPECT_EQ(fleet.rack(0).full_w, 40'800);
}

// NVIDIA's table has 512 leaf, 512 spine and 256 core switches for 16,384 ports; there are 8 rails of so
// many.
TEST(PresetTest, Hyperscale) {
  Fleet fleet = preset("hyperscale-131k");
  EXPECT_EQ(fleet.hosts().size(), 16'384u);
  EXPECT_EQ(fleet.num_gpus(*find_series("ND_H100_v5")), 131'072);
  EXPECT_EQ(fleet.leaves().size(), 512u);
  EXPECT_EQ(fleet.spines().size(), 16u);
  EXPECT_EQ(switches_of(fleet, SwitchTier::kLeaf), 8 * 512);
  EXPECT_EQ(switches_of(fleet, SwitchTier::kSpine), 8 * 512);
  EXPECT_EQ(switches_of(fleet, SwitchTier::kCore), 8 * 256);
  EXPECT_EQ(fleet.leaf(0).num_racks, 8);     // re-planned: 4 hosts a rack
  EXPECT_EQ(fleet.leaf(511).num_racks, 32);  // air-cooled: one
  EXPECT_EQ(fleet.rack(fleet.leaf(511).first_rack).power_budget_w, 12'500);
  EXPECT_EQ(fleet.rows().size(), 384u + 128 * 2);
  EXPECT_EQ(fleet.row(0).power_budget_w, 8 * 40'800);
  EXPECT_FALSE(fleet.row(0).can_run_short());
  EXPECT_EQ(fleet.sites()[0].full_w, 16'384 * 10'200);
}

TEST(PresetTest, OtherRacksForTheSameHosts) {
  Fleet fleet = preset("hyperscale-131k", {.hosts_per_rack = 4, .power_budget_w = 12'500});
  EXPECT_EQ(fleet.hosts().size(), 16'384u);
  EXPECT_EQ(fleet.racks().size(), 4096u);
  EXPECT_TRUE(fleet.rack(4095).can_run_short());
  EXPECT_EQ(fleet.shared_row(0), -1);  // a row of 8 racks is one unit
}

TEST(PresetTest, NamesItsFactsAndRefusesOthers) {
  for (const Preset& entry : presets()) {
    EXPECT_TRUE(preset_fleet(entry.name).has_value());
    EXPECT_NE(std::string(entry.source), "");
  }
  EXPECT_EQ(preset_fleet("eagel").error().message, "there is no preset 'eagel', did you mean 'eagle'?");
  EXPECT_FALSE(preset_fleet("eagle", {.hosts_per_rack = -1}).has_value());
}

TEST(SeriesCatalogueTest, EachHasItsSourceAndDate) {
  for (const Series& series : series_catalogue()) {
    EXPECT_GE(series.gpus_per_host, 1) << series.name;
    EXPECT_LE(series.gpus_per_host, 32) << series.name;
    EXPECT_GT(series.microusd_per_gpu_hour, 0) << series.name;
    EXPECT_NE(std::string(series.source), "") << series.name;
    EXPECT_EQ(std::string(series.as_of).size(), 10u) << series.name;
  }
  // DGX H100: 10.2 kW; a GB200 compute tray: 5.4 kW, 18 of them in one NVLink domain of 72 GPUs.
  const auto at = [](const char* name) {
    return series_catalogue()[static_cast<size_t>(*find_series(name))];
  };
  EXPECT_EQ(at("ND_H100_v5").host_full_w(), 10'200);
  EXPECT_EQ(at("NDR_GB200_v6").host_full_w(), 5400);
  EXPECT_EQ(at("NDR_GB200_v6").nvlink_domain_hosts * at("NDR_GB200_v6").gpus_per_host, 72);
}

}  // namespace
}  // namespace th::fleet
