// Scores computed by hand from the formulas that the FGD paper's simulator uses.

#include "sim/packing/policies.h"

#include <gtest/gtest.h>

#include <cmath>

namespace th::sim {
namespace {

using reserve::kAnyGpuModel;

HostRoom room(int64_t cpu_milli, std::vector<int16_t> free_milli) {
  HostRoom out{cpu_milli, 1024, 0, static_cast<int32_t>(free_milli.size()), {}};
  std::copy(free_milli.begin(), free_milli.end(), out.free_milli.begin());
  return out;
}

PodShape pod(int64_t cpu_milli, int32_t num_gpus, int32_t gpu_milli, int64_t memory_mib = 0) {
  return {cpu_milli, memory_mib, num_gpus, gpu_milli, kAnyGpuModel};
}

TEST(PackingPolicies, BestFitAndDotProd) {
  const HostRoom host = room(64'000, {1000, 1000, 1000, 1000});
  const PodShape asks = pod(32'000, 1, 1000);
  // 1 - (0.5 × 32,000 / 128,000 + 0.5 × 3,000 / 8,000)
  EXPECT_DOUBLE_EQ(bestfit_score(host, asks), 68.75);
  // 1 - (64,000 × 32,000 / 128,000² + 4,000 × 1,000 / 8,000²) / 2
  EXPECT_DOUBLE_EQ(dotprod_score(host, asks), 90.625);
  auto bestfit = make_packing_policy("bestfit", {}, {}, 1).value();
  EXPECT_DOUBLE_EQ(bestfit->score(host, asks).score, 68);  // cut to an integer
  EXPECT_EQ(bestfit->score(room(64'000, {1000, 400, 700}), pod(0, 1, 300)).gpus, 0b010);
}

TEST(PackingPolicies, FgdFragment) {
  const std::vector<TypicalPod> typical = {
      {pod(4000, 1, 1000), 0.5}, {pod(1000, 1, 500), 0.3}, {pod(1000, 0, 0), 0.2}};
  // Whole: 600 + 200 are too small. Half: 200 are. CPU only: all 1,800.
  EXPECT_NEAR(fgd_fragment_milli(room(8000, {600, 1000, 200}), typical), 0.5 * 800 + 0.3 * 200 + 0.2 * 1800,
              1e-9);
  // The whole pod lacks CPU: all 1,800 are lost to it.
  EXPECT_NEAR(fgd_fragment_milli(room(3000, {600, 1000, 200}), typical), 0.5 * 1800 + 0.3 * 200 + 0.2 * 1800,
              1e-9);
  EXPECT_NEAR(fgd_score(1000, 0), 73.105857863, 1e-6);  // 100 / (1 + 1/e)
}

TEST(PackingPolicies, FgdTakesTheGpuThatFragmentsLeast) {
  auto fgd = make_packing_policy("fgd", {{pod(0, 1, 1000), 1}}, {}, 1).value();
  // Fragment 500 before. On the half GPU 100 after, on the whole one 500 + 600.
  Packed packed = fgd->score(room(0, {1000, 500}), pod(0, 1, 400));
  EXPECT_EQ(packed.gpus, 0b10);
  EXPECT_DOUBLE_EQ(packed.score, std::floor(100 / (1 + std::exp(-0.4))));
}

TEST(PackingPolicies, FgdTypicalPodsAreThoseOfNinetyFivePercentWithoutMemory) {
  auto pods = fgd_typical_pods(
      {{pod(1, 1, 1000, 5), 6}, {pod(2, 0, 0, 1), 50}, {pod(3, 1, 500), 4}, {pod(2, 0, 0, 2), 40}});
  ASSERT_EQ(pods.size(), 2u);
  EXPECT_EQ(pods[0].shape, pod(2, 0, 0));
  EXPECT_DOUBLE_EQ(pods[0].frequency, 90.0 / 96);
  EXPECT_EQ(pods[1].shape, pod(1, 1, 1000));
  EXPECT_DOUBLE_EQ(pods[1].frequency, 6.0 / 96);
}

TEST(PackingPolicies, AnUnknownNameIsToldWithTheNearest) {
  auto policy = make_packing_policy("fdg", {}, {}, 1);
  ASSERT_FALSE(policy);
  EXPECT_EQ(policy.error().message.substr(0, 53), "there is no packing policy 'fdg', did you mean 'fgd'?");
}

}  // namespace
}  // namespace th::sim
