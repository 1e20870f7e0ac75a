#include "sim/packing/replay.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>

namespace th::sim {
namespace {

using reserve::GpuSet;

OpenbPod pod(int64_t cpu_milli, int32_t gpus, int32_t gpu_milli, std::vector<std::string> models = {}) {
  return {cpu_milli, 16, gpus, gpu_milli, std::move(models)};
}

TEST(PackingReplay, TraceCountsClassesAndNumbersModels) {
  PackingTrace trace = make_packing_trace({{"a", 8000, 64, 2, "T4"}, {"b", 9000, 64, 1, "A10"}},
                                          {pod(1, 1, 500), pod(2, 1, 1000, {"A10", "H100"}), pod(1, 1, 500)});
  EXPECT_EQ(trace.idle_by_model, (std::vector<int64_t>{2000, 1000}));
  EXPECT_EQ(trace.capacity_milli(), 3000);
  EXPECT_EQ(trace.pods, (std::vector<int32_t>{0, 1, 0}));
  EXPECT_DOUBLE_EQ(trace.classes[0].frequency, 2);
  EXPECT_EQ(trace.classes[1].shape.models, 0b10u);  // no node has an H100
}

TEST(PackingReplay, ArrivalsAreTheListShuffledAndDrawsUpToTheLimit) {
  // Capacity 4,000, limit 5,200; the list asks 1,500, each draw adds 500 or 1,000.
  PackingTrace trace = make_packing_trace({{"a", 1, 1, 4, "T4"}}, {pod(0, 1, 500), pod(0, 1, 1000)});
  auto pods = arrivals(trace, 3);
  EXPECT_EQ(pods, arrivals(trace, 3));
  EXPECT_NE(pods[0], pods[1]);
  int64_t demand = 0;
  for (int32_t index : pods) demand += trace.classes[static_cast<size_t>(index)].shape.total_milli();
  EXPECT_LE(demand, 5200);
  EXPECT_GT(demand, 4200);
}

TEST(PackingReplay, ATieGoesToTheFirstHost) {
  PackingTrace trace =
      make_packing_trace({{"a", 64'000, 64, 2, "T4"}, {"b", 64'000, 64, 2, "T4"}}, {pod(1000, 1, 1000)});
  for (const char* name : {"bestfit", "dotprod", "fgd", "thunderhead"}) {
    auto policy = make_packing_policy(name, trace.classes, trace.idle_by_model, 1).value();
    HostPool pool(trace, *policy);
    GpuSet gpus = 0;
    EXPECT_EQ(pool.put(0, gpus), 0) << name;
    EXPECT_EQ(gpus, 1) << name;
  }
}

TEST(PackingReplay, AllocationIsReadAtEachPercentOfWhatArrived) {
  // One GPU, halves: at 95 % arrived one half is in, at 100 % and later both, and no third fits.
  PackingTrace trace = make_packing_trace({{"a", 1, 1, 1, "T4"}}, {{0, 0, 1, 500, {}}});
  for (const std::string& name : packing_policies()) {
    auto policy = make_packing_policy(name, trace.classes, trace.idle_by_model, 1).value();
    PackingRun run = replay_packing(trace, *policy, 1, Env::real());
    EXPECT_EQ(run.pods, 2) << name;
    EXPECT_EQ(run.placed, 2) << name;
    EXPECT_DOUBLE_EQ(run.alloc_pct[0], 50) << name;
    EXPECT_DOUBLE_EQ(run.alloc_pct[1], 100) << name;
    EXPECT_DOUBLE_EQ(run.alloc_pct[3], 100) << name;
  }
}

/// Does the pod fit, read naively?
bool could_take(const OpenbNode& node, const HostRoom& left, const OpenbPod& asks) {
  if (asks.cpu_milli > left.cpu_milli || asks.memory_mib > left.memory_mib) return false;
  if (asks.gpus == 0) return true;
  if (!asks.models.empty() && std::count(asks.models.begin(), asks.models.end(), node.model) == 0)
    return false;
  return std::count_if(left.free_milli.begin(), left.free_milli.begin() + node.gpus,
                       [&](int16_t free) { return free >= asks.gpu_milli; }) >= asks.gpus;
}

struct World {
  std::vector<OpenbNode> nodes;
  std::vector<OpenbPod> pods;
};

World make_world() {
  const std::vector<std::string> models = {"A10", "T4", "V100"};
  World world;
  const auto num_nodes = *rc::gen::inRange(1, 5), num_pods = *rc::gen::inRange(1, 30);
  for (int i = 0; i < num_nodes; ++i) {
    world.nodes.push_back({std::to_string(i), *rc::gen::inRange(0, 20), *rc::gen::inRange(0, 20),
                           *rc::gen::inRange(1, 9), *rc::gen::elementOf(models)});
  }
  for (int i = 0; i < num_pods; ++i) {
    OpenbPod asks{*rc::gen::inRange(0, 6), *rc::gen::inRange(0, 6), *rc::gen::inRange(0, 5), 0, {}};
    if (asks.gpus > 0) asks.gpu_milli = *rc::gen::element(100, 250, 300, 500, 800, 1000, 1000);
    if (*rc::gen::inRange(0, 3) == 0) asks.models = {*rc::gen::elementOf(models)};
    world.pods.push_back(asks);
  }
  return world;
}

RC_GTEST_PROP(PackingProperty, NeverOvercommitsAndPlacesWhatFits, ()) {
  const World world = make_world();
  const PackingTrace trace = make_packing_trace(world.nodes, world.pods);
  for (const std::string& name : packing_policies()) {
    auto policy = make_packing_policy(name, trace.classes, trace.idle_by_model, 7).value();
    HostPool pool(trace, *policy);
    std::vector<HostRoom> before(pool.hosts().begin(), pool.hosts().end());
    for (size_t i = 0; i < world.pods.size(); ++i) {
      const OpenbPod& asks = world.pods[i];
      GpuSet gpus = 0;
      const int32_t host = pool.put(trace.pods[i], gpus);
      bool fits_somewhere = false;
      for (size_t n = 0; n < world.nodes.size(); ++n)
        fits_somewhere |= could_take(world.nodes[n], before[n], asks);
      RC_ASSERT((host >= 0) == fits_somewhere);
      if (host < 0) continue;
      const auto h = static_cast<size_t>(host);
      RC_ASSERT(could_take(world.nodes[h], before[h], asks));
      RC_ASSERT(std::popcount(gpus) == asks.gpus);
      HostRoom expected = before[h];
      expected.cpu_milli -= asks.cpu_milli;
      expected.memory_mib -= asks.memory_mib;
      for (int32_t g = 0; g < reserve::kMaxGpusPerHost; ++g) {
        if ((gpus >> g & 1) == 0) continue;
        RC_ASSERT(g < world.nodes[h].gpus);
        int16_t& free = expected.free_milli[static_cast<size_t>(g)];
        free = static_cast<int16_t>(free - asks.gpu_milli);
        RC_ASSERT(free >= 0);
      }
      before[h] = expected;
      RC_ASSERT(std::equal(before.begin(), before.end(), pool.hosts().begin()));
    }
  }
}

RC_GTEST_PROP(PackingProperty, ASeedReplaysToTheBit, ()) {
  World world = make_world();
  world.pods.push_back({0, 0, 1, 500, {}});  // draws end only where something asks for GPUs
  const PackingTrace trace = make_packing_trace(world.nodes, world.pods);
  const auto seed = *rc::gen::arbitrary<uint64_t>();
  for (const std::string& name : packing_policies()) {
    auto run = [&] {
      auto policy = make_packing_policy(name, trace.classes, trace.idle_by_model, seed).value();
      return replay_packing(trace, *policy, seed, Env::real());
    };
    const PackingRun first = run(), second = run();
    RC_ASSERT(first.hash == second.hash);
    RC_ASSERT(first.alloc_pct == second.alloc_pct);
    RC_ASSERT(first.placed == second.placed);
  }
}

}  // namespace
}  // namespace th::sim
