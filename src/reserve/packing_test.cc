#include "reserve/packing.h"

#include <gtest/gtest.h>

namespace th::reserve {
namespace {

HostRoom room(int64_t cpu_milli, std::vector<int16_t> free_milli, int32_t model = 0) {
  HostRoom out{cpu_milli, 1024, model, static_cast<int32_t>(free_milli.size()), {}};
  std::copy(free_milli.begin(), free_milli.end(), out.free_milli.begin());
  return out;
}

PodShape pod(int64_t cpu_milli, int32_t num_gpus, int32_t gpu_milli, uint64_t models = kAnyGpuModel) {
  return {cpu_milli, 1, num_gpus, gpu_milli, models};
}

const std::vector<int64_t> kOneModel = {8000};

TEST(Packing, FitsLooksAtCpuMemoryModelAndEachGpu) {
  const HostRoom host = room(4000, {300, 1000, 600}, 1);
  EXPECT_TRUE(fits(host, pod(4000, 1, 1000)));
  EXPECT_FALSE(fits(host, pod(4001, 1, 1000)));
  EXPECT_FALSE(fits(host, {0, 1025, 0, 0, kAnyGpuModel}));
  EXPECT_FALSE(fits(host, pod(0, 2, 1000)));
  EXPECT_TRUE(fits(host, pod(0, 2, 600)));
  EXPECT_TRUE(fits(host, pod(0, 1, 1000, 0b10)));
  EXPECT_FALSE(fits(host, pod(0, 1, 1000, 0b01)));
  EXPECT_TRUE(fits(host, pod(0, 0, 0, 0b01)));  // a pod without GPUs runs anywhere
}

TEST(Packing, TightestTakesTheFullestGpusThatFit) {
  const HostRoom host = room(4000, {1000, 300, 600, 600});
  EXPECT_EQ(tightest_gpus(host, pod(0, 1, 250)), 0b0010);
  EXPECT_EQ(tightest_gpus(host, pod(0, 1, 400)), 0b0100);
  EXPECT_EQ(tightest_gpus(host, pod(0, 3, 600)), 0b1101);
  HostRoom after = take(host, pod(500, 1, 400), 0b0100);
  EXPECT_EQ(after.free_milli, (std::array<int16_t, 8>{1000, 300, 200, 600}));
  EXPECT_EQ(after.cpu_milli, 3500);
  EXPECT_EQ(idle_milli(after), 2100);
}

TEST(Packing, AFractionMayGoToOneOfEachKindOfGpu) {
  std::array<GpuSet, kMaxGpusPerHost> out;
  ASSERT_EQ(gpu_choices(room(1, {1000, 300, 1000, 600}), pod(0, 1, 400), out), 2);
  EXPECT_EQ(out[0], 0b0001);
  EXPECT_EQ(out[1], 0b1000);
  ASSERT_EQ(gpu_choices(room(1, {300, 1000, 1000}), pod(0, 1, 1000), out), 1);
  EXPECT_EQ(out[0], 0b010);
}

TEST(ModelLoad, SpreadsDemandSoThatTheFullestIsAsEmptyAsItCanBe) {
  // Of 8,000 idle milli-GPU the pods for model 0 alone ask 2,000, so those for 0 or 1 (2,000) all go to 1.
  const std::vector<TypicalPod> typical = {
      {pod(0, 1, 1000, 0b01), 1}, {pod(0, 1, 1000, 0b11), 1}, {pod(0, 2, 1000), 1}};
  ModelLoad load(typical);
  load.spread(std::vector<int64_t>{4000, 4000});
  EXPECT_NEAR(load.ratio(0), 0.5, 1e-9);
  EXPECT_NEAR(load.ratio(1), 0.5, 1e-9);
  EXPECT_NEAR(load.part(0b11, 1), 1, 1e-9);
  EXPECT_NEAR(load.part(kAnyGpuModel, 0), 0.5, 1e-9);
  // 1,000 and 7,000: 2,000 for model 0 alone are twice what there is.
  load.spread(std::vector<int64_t>{1000, 7000});
  EXPECT_NEAR(load.ratio(0), 2, 1e-9);
  EXPECT_NEAR(load.ratio(1), 2.0 / 7, 1e-9);
  EXPECT_NEAR(load.part(kAnyGpuModel, 0), 0, 1e-9);
}

TEST(Packer, ValueIsWhatTheUsualPodsCouldUse) {
  const std::vector<TypicalPod> whole = {{pod(4000, 1, 1000), 3}, {pod(9000, 0, 0), 5}};
  Packer packer(whole, kOneModel);
  EXPECT_DOUBLE_EQ(packer.value(room(8000, {1000, 1000})), 2000);
  EXPECT_DOUBLE_EQ(packer.value(room(7999, {1000, 1000})), 1000);  // CPU for one of them
  EXPECT_DOUBLE_EQ(packer.value(room(8000, {999, 1000})), 1000);
  const std::vector<TypicalPod> pairs = {{pod(0, 2, 1000), 1}};
  EXPECT_DOUBLE_EQ(Packer(pairs, kOneModel).value(room(0, {1000, 0, 1000, 1000})), 2000 * 1.05);
}

TEST(Packer, PutsAFractionWhereWholeGpusStayWhole) {
  const std::vector<TypicalPod> whole = {{pod(0, 1, 1000), 1}};
  Packer packer(whole, kOneModel);
  Packed packed = packer.score(room(0, {1000, 500}), pod(0, 1, 400));
  EXPECT_EQ(packed.gpus, 0b10);
  EXPECT_DOUBLE_EQ(packed.score, 400);  // 400 are used that nobody else could have used
  EXPECT_DOUBLE_EQ(packer.score(room(0, {1000, 300}), pod(0, 1, 400)).score, -600);
}

TEST(Packer, APodWithoutGpusGoesWhereItsCpuIsNotMissed) {
  const std::vector<TypicalPod> whole = {{pod(4000, 1, 1000), 1}};
  Packer packer(whole, kOneModel);
  EXPECT_DOUBLE_EQ(packer.score(room(4000, {1000}), pod(1, 0, 0)).score, -1000);
  EXPECT_DOUBLE_EQ(packer.score(room(4000, {0}), pod(1, 0, 0)).score, 0);
}

TEST(Packer, ScarceModelsHaveAPrice) {
  const std::vector<TypicalPod> typical = {{pod(0, 1, 1000, 0b01), 1}, {pod(0, 1, 1000), 1}};
  Packer packer(typical, std::vector<int64_t>{4000, 4000});
  EXPECT_DOUBLE_EQ(packer.price(0), 1);  // half of all demand, half of all GPUs
  EXPECT_DOUBLE_EQ(packer.price(1), 0);
  packer.set_idle(std::vector<int64_t>{4000, 0});
  EXPECT_DOUBLE_EQ(packer.price(0), 0.25);                  // (2,000 of 4,000)²
  EXPECT_DOUBLE_EQ(weigh(400, 0.5, pod(0, 1, 1000)), 100);  // 400 - 0.5 × the 600 lost
}

TEST(Packer, WithoutUsualPodsEveryPlaceIsAsGood) {
  Packer packer({}, kOneModel);
  EXPECT_DOUBLE_EQ(packer.value(room(8000, {1000})), 0);
  EXPECT_EQ(packer.score(room(8000, {1000}), pod(1, 1, 1000)).gpus, 1);
}

}  // namespace
}  // namespace th::reserve
