#include <gtest/gtest.h>

#include <map>

#include "fleet/presets.h"
#include "sim/placement/load.h"
#include "sim/placement/optimal.h"
#include "sim/placement/power.h"

namespace th::sim {
namespace {

TEST(OptimalTest, NoPlaceIsMissedAndTheSameSeedSaysTheSame) {
  OptimalResult result = run_optimal(300, 5);
  EXPECT_EQ(result.missed, 0);
  EXPECT_EQ(result.unsound, 0);
  EXPECT_GT(result.placed, 50);
  EXPECT_LT(result.placed, 300);  // some cases have no place
  EXPECT_LE(result.mean_gap_pct, 2) << result.worst;
  EXPECT_EQ(run_optimal(300, 5).log_hash, result.log_hash);
  EXPECT_NE(run_optimal(300, 6).log_hash, result.log_hash);
}

// 93.2 % of Philly's jobs want one GPU (76,627 of 82,247), three want 128.
TEST(LoadTest, SizesAreThoseOfPhilly) {
  Prng random(1);
  std::map<int64_t, int> counts;
  for (int i = 0; i < 20'000; ++i) ++counts[draw_philly_gpus(random)];
  EXPECT_NEAR(counts[1], 20'000 * 76'627.0 / 82'247, 200);
  EXPECT_NEAR(counts[8], 20'000 * 1643.0 / 82'247, 80);
  for (auto [gpus, count] : counts) EXPECT_LE(gpus, 128);
}

TEST(LoadTest, FillsToTheGoalAndNoFurtherThanOneGang) {
  auto fleet = std::make_shared<const fleet::Fleet>(*fleet::preset_fleet("voyager-eus2"));
  Load load(fleet, "NDm_A100_v4", 3);
  load.fill_up(0.5);
  EXPECT_GE(load.fill(), 0.5);
  EXPECT_LE(load.gpus_taken(), 1056 + 128);
  int64_t gpus = 0;
  for (const auto& claim : load.claims()) gpus += static_cast<int64_t>(claim.hosts.size()) * 8;
  EXPECT_EQ(gpus, load.gpus_taken());
  EXPECT_EQ(rack_cells(load.snapshot()).size(), fleet->racks().size());
}

// 264 hosts of 6.5 kW, 4 a rack: 13 leaves have 5 racks of 4, the last has one. A rack of 14 kW runs 2 hosts
// and strands 1 kW.
TEST(PowerTest, CountsWhatRacksCanRun) {
  auto air = run_power("voyager-eus2", {.hosts_per_rack = 4, .power_budget_w = 14'000}, 1, 1);
  ASSERT_TRUE(air.has_value()) << air.error().message;
  EXPECT_EQ(air->racks, 66);
  EXPECT_EQ(air->gpus_usable, 66 * 2 * 8);
  EXPECT_EQ(air->stranded_w, 66 * 1000);
  EXPECT_EQ(air->placed_gpus, air->gpus_usable);
  EXPECT_EQ(air->power_used_w, 66 * 13'000);
  auto whole = run_power("voyager-eus2", {.hosts_per_rack = 4, .power_budget_w = 26'000}, 1, 1);
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole->gpus_usable, 2112);
  EXPECT_EQ(whole->stranded_w, 0);
  EXPECT_GT(whole->placed_gpus, air->placed_gpus);
}

}  // namespace
}  // namespace th::sim
