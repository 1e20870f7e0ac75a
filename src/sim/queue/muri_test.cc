#include "sim/queue/muri.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "sim/queue/muri_nodes.h"

namespace th::sim {
namespace {

/// A job of `work_s` seconds whose start takes 6 s.
MuriJob job(double submit_s, int32_t gpus, double work_s) {
  return {.id = "", .gpus = gpus, .submit_s = submit_s, .iterations = work_s, .iteration_s = 1, .start_s = 6};
}

MuriRun run_of(MuriPolicy policy, MuriProtocol protocol, int32_t nodes = 1) {
  return {
      .policy = policy, .protocol = protocol, .durations_known = true, .nodes = nodes, .gpus_per_node = 8};
}

// The long job did 50 − 6 = 44 s when the short one came, which ran 1 s; each event but an end costs 6 s.
TEST(Muri, SrtfUnderItsOwnProtocol) {
  const std::vector<MuriJob> jobs = {job(0, 8, 100), job(50, 8, 1)};
  const MuriOutcome out = run_muri(jobs, run_of(MuriPolicy::kSrtf, MuriProtocol::kMuri));
  EXPECT_DOUBLE_EQ(out.jct_s[1], 1);
  EXPECT_DOUBLE_EQ(out.jct_s[0], 51 + 56);
  EXPECT_DOUBLE_EQ(out.makespan_s, 107);
  EXPECT_EQ(out.preempted, 1);
}

// Placed: both starts cost the job itself 6 s, and so does the long one's second.
TEST(Muri, SrtfPlaced) {
  const std::vector<MuriJob> jobs = {job(0, 8, 100), job(50, 8, 1)};
  const MuriOutcome out = run_muri(jobs, run_of(MuriPolicy::kSrtf, MuriProtocol::kPlaced));
  EXPECT_DOUBLE_EQ(out.jct_s[1], 7);
  EXPECT_DOUBLE_EQ(out.jct_s[0], 50 + 7 + 6 + 56);
  EXPECT_EQ(out.starts, 3);
}

// 8 GPUs × 10 s are more than 1 GPU × 70 s, though they are less time.
TEST(Muri, SrsfWeighsTimeByGpus) {
  const std::vector<MuriJob> jobs = {job(0, 8, 10), job(0, 1, 70)};
  const MuriOutcome out = run_muri(jobs, run_of(MuriPolicy::kSrsf, MuriProtocol::kMuri));
  EXPECT_DOUBLE_EQ(out.jct_s[1], 70);
  EXPECT_DOUBLE_EQ(out.jct_s[0], 80);
}

// 8 GPUs attain 3,250 GPU-seconds at ceil(3250 / 8) = 407 s: then the other one, which came at 100 s, goes
// first. Lost are 6 s at 100, at 407, and at 901 when the long one falls into the last queue (900 s run).
TEST(Muri, TiresiasDemotesByAttainedService) {
  const std::vector<MuriJob> jobs = {job(0, 8, 1000), job(100, 8, 1)};
  const MuriOutcome out = run_muri(jobs, run_of(MuriPolicy::kTiresias, MuriProtocol::kMuri));
  EXPECT_DOUBLE_EQ(out.jct_s[1], 308);
  EXPECT_DOUBLE_EQ(out.jct_s[0], 1 + 1000 + 3 * 6);
  EXPECT_EQ(out.preempted, 1);
}

// 4 + 1 on one node and 4 on the other leave 7 GPUs and no whole node: when the 1 ends, a job of 8
// needs the two 4s on one node: one of them moves, which costs it 6 s.
TEST(Muri, PlacedMovesAJobThatIsInTheWay) {
  const std::vector<MuriJob> jobs = {job(0, 4, 1000), job(0, 4, 1), job(0, 4, 1000), job(10, 8, 1)};
  const MuriOutcome out = run_muri(jobs, run_of(MuriPolicy::kSrtf, MuriProtocol::kPlaced, 2));
  EXPECT_EQ(out.preempted, 0);
  EXPECT_DOUBLE_EQ(out.jct_s[1], 7);
  EXPECT_DOUBLE_EQ(out.jct_s[3], 7);
  EXPECT_EQ(out.starts, 5);
  EXPECT_DOUBLE_EQ(std::max(out.jct_s[0], out.jct_s[2]), 1006 + 6);
}

TEST(MuriPacking, FillsHolesByDecreasingSize) {
  MuriPacking packing(2, 8);
  for (int32_t gpus : {4, 1, 4, 2}) EXPECT_TRUE(packing.add(gpus));
  EXPECT_FALSE(packing.add(8));
  EXPECT_TRUE(packing.add(4));
  EXPECT_FALSE(packing.add(2));
  EXPECT_TRUE(packing.add(1));
  EXPECT_FALSE(packing.add(1));
}

struct Case {
  std::vector<MuriJob> jobs;
  MuriRun run;
};

Case random_case(bool ones) {
  Case out;
  double submit_s = 0;
  for (int left = *rc::gen::inRange(1, 25); left > 0; --left) {
    submit_s += *rc::gen::inRange(0, 300);
    const int32_t gpus = ones ? 1 : *rc::gen::element(1, 2, 3, 4, 8, 16);
    out.jobs.push_back(job(submit_s, gpus, *rc::gen::inRange(1, 5000)));
  }
  const auto policy = *rc::gen::element(MuriPolicy::kSrtf, MuriPolicy::kSrsf, MuriPolicy::kTiresias,
                                        MuriPolicy::kThunderhead);
  out.run = run_of(policy, *rc::gen::element(MuriProtocol::kMuri, MuriProtocol::kPlaced), 2);
  out.run.durations_known = *rc::gen::arbitrary<bool>();
  return out;
}

RC_GTEST_PROP(Muri, EveryJobEndsAfterItsWorkAndNoMoreGpusAreUsedThanThere, ()) {
  const Case random = random_case(false);
  const MuriOutcome out = run_muri(random.jobs, random.run);
  for (size_t i = 0; i < random.jobs.size(); ++i) {
    const double start_s = random.run.protocol == MuriProtocol::kPlaced ? random.jobs[i].start_s : 0;
    RC_ASSERT(out.jct_s[i] >= (random.jobs[i].iterations + start_s) * (1 - 1e-12));
  }
  for (const QueueSample& sample : out.samples.all()) RC_ASSERT(sample.gpus <= 16);
  RC_ASSERT(out.samples.all().back().gpus == 0 && out.samples.all().back().waiting == 0);
  RC_ASSERT(out.log_hash == run_muri(random.jobs, random.run).log_hash);
}

RC_GTEST_PROP(Muri, NobodyWaitsBesideAFreeGpuThatWouldDo, ()) {
  const Case random = random_case(true);
  const MuriOutcome out = run_muri(random.jobs, random.run);
  for (const QueueSample& sample : out.samples.all()) RC_ASSERT(sample.waiting == 0 || sample.gpus == 16);
}

}  // namespace
}  // namespace th::sim
