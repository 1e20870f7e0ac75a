#include "sim/queue/engine.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "sim/queue/pool.h"

namespace th::sim {
namespace {

QueueJob job(double submit_s, double duration_s, int32_t gpus) {
  return {submit_s, duration_s, duration_s, gpus};
}

QueueOutcome run(const std::vector<QueueJob>& jobs, QueuePolicyKind policy, int32_t nodes = 1) {
  return run_queue(jobs, {.policy = policy, .nodes = nodes, .gpus_per_node = 8});
}

TEST(Queue, FifoLetsNobodyPass) {
  const QueueOutcome out = run({job(0, 100, 8), job(1, 10, 8), job(2, 5, 1)}, QueuePolicyKind::kFifo);
  EXPECT_EQ(out.first_start_s, (std::vector<double>{0, 100, 110}));
  EXPECT_EQ(out.end_s, (std::vector<double>{100, 110, 115}));
  EXPECT_DOUBLE_EQ(out.avg_jct_s, (100 + 109 + 113) / 3.0);
  EXPECT_DOUBLE_EQ(out.utilisation, (800 + 80 + 5) / (8 * 115.0));
  EXPECT_DOUBLE_EQ(out.wait_p50_s, 99);
  EXPECT_EQ(out.events(), 9);
}

// The job of 8 has a reservation at 100. One of 50 s passes; one of 99 s would be in its way, one of 48 s
// that starts at 52 would not.
TEST(Queue, BackfillPassesOnlyWhereTheFirstIsNotDelayed) {
  const std::vector<QueueJob> jobs = {job(0, 100, 4), job(1, 10, 8), job(2, 50, 4), job(3, 99, 4),
                                      job(4, 48, 4)};
  EXPECT_EQ(run(jobs, QueuePolicyKind::kBackfill).first_start_s, (std::vector<double>{0, 100, 2, 110, 52}));
}

// 6 of the second node's GPUs come free at 50, when the first in the queue needs 4: of the 8 there, 4 are
// spare.
TEST(Queue, BackfillUsesWhatTheReservationLeaves) {
  const std::vector<QueueJob> jobs = {job(0, 100, 8), job(0, 50, 6), job(1, 10, 4), job(2, 1000, 2)};
  EXPECT_EQ(run(jobs, QueuePolicyKind::kBackfill, 2).first_start_s, (std::vector<double>{0, 0, 50, 2}));
}

TEST(Queue, BackfillBringsTheReservationForwardWhenAJobEndsEarly) {
  std::vector<QueueJob> jobs = {job(0, 30, 8), job(1, 10, 8)};
  jobs[0].limit_s = 100;
  EXPECT_EQ(run(jobs, QueuePolicyKind::kBackfill).first_start_s, (std::vector<double>{0, 30}));
}

// 8 GPUs attain 3,250 GPU-seconds after 406.25 s; the restart takes 10 s.
TEST(Queue, TiresiasPreemptsWhatHasRunLonger) {
  const QueueOutcome out = run({job(0, 1000, 8), job(100, 10, 8)}, QueuePolicyKind::kTiresias);
  EXPECT_NEAR(out.first_start_s[1], 406.25, 0.01);
  EXPECT_NEAR(out.end_s[0], 1000 + 10 + 10, 1e-6);
  EXPECT_EQ(out.preemptions, 1);
}

TEST(Queue, ThunderheadPreemptsWhatIsExpectedToRunMuchLonger) {
  const QueueOutcome out = run({job(0, 100'000, 8), job(50'000, 60, 8)}, QueuePolicyKind::kThunderhead);
  EXPECT_DOUBLE_EQ(out.end_s[1], 50'060);
  EXPECT_DOUBLE_EQ(out.end_s[0], 100'000 + 60 + 10);
}

// Two 4s on one node and a 6 on the other: an 8 that ranks before all takes the node of the 4s or that of the
// 6, never parts of both.
TEST(Queue, ThunderheadPreemptsOneNodeOnly) {
  const QueueOutcome out = run({job(0, 50'000, 4), job(0, 50'000, 4), job(0, 90'000, 6), job(20'000, 60, 8)},
                               QueuePolicyKind::kThunderhead, 2);
  EXPECT_DOUBLE_EQ(out.first_start_s[3], 20'000);
  EXPECT_LE(out.preemptions, 2);
}

TEST(NodePool, TakesTheTightestNodeAndWholeNodesForLargeJobs) {
  NodePool pool(3, 8);
  Place a, b, c, d;
  ASSERT_TRUE(pool.take(6, a));
  ASSERT_TRUE(pool.take(2, b));
  EXPECT_EQ(a[0].first, b[0].first);
  EXPECT_FALSE(pool.take(17, c));
  ASSERT_TRUE(pool.take(12, c));
  EXPECT_EQ(c.size(), 2u);
  EXPECT_FALSE(pool.take(5, d));
  ASSERT_TRUE(pool.take(4, d));
  EXPECT_EQ(pool.free(), 0);
  pool.give(c);
  EXPECT_TRUE(pool.fits(12));
  pool.hide(c[0].first);
  EXPECT_FALSE(pool.fits(8));
}

constexpr auto kPolicies = {QueuePolicyKind::kFifo, QueuePolicyKind::kBackfill, QueuePolicyKind::kTiresias,
                            QueuePolicyKind::kThunderhead};

std::vector<QueueJob> random_jobs(const std::vector<int32_t>& sizes, bool exact) {
  std::vector<QueueJob> jobs;
  double submit_s = 0;
  for (int left = *rc::gen::inRange(1, 40); left > 0; --left) {
    submit_s += *rc::gen::inRange(0, 500);
    jobs.push_back(job(submit_s, *rc::gen::inRange(0, 4000), *rc::gen::elementOf(sizes)));
    if (!exact) jobs.back().limit_s += *rc::gen::inRange(0, 4000);
  }
  return jobs;
}

RC_GTEST_PROP(Queue, EveryJobDoesItsWorkOnGpusThatAreThere, ()) {
  const auto jobs = random_jobs({1, 2, 3, 4, 8, 12, 16, 24}, false);
  double work_gpu_s = 0;
  for (const QueueJob& each : jobs) work_gpu_s += each.gpus * each.duration_s;
  for (QueuePolicyKind policy : kPolicies) {
    const QueueRun setting{.policy = policy, .nodes = 3, .gpus_per_node = 8, .restart_s = 0};
    const QueueOutcome out = run_queue(jobs, setting);
    for (size_t i = 0; i < jobs.size(); ++i) {
      RC_ASSERT(out.first_start_s[i] >= jobs[i].submit_s);
      const double took_s = out.end_s[i] - out.first_start_s[i];
      RC_ASSERT(took_s >= jobs[i].duration_s - 1e-6);
      if (out.preemptions == 0) RC_ASSERT(took_s <= jobs[i].duration_s + 1e-6);
    }
    for (const QueueSample& sample : out.samples.all()) RC_ASSERT(sample.gpus >= 0 && sample.gpus <= 24);
    RC_ASSERT(std::abs(out.utilisation * 24 * out.makespan_s - work_gpu_s) <= 1e-6 * (1 + work_gpu_s));
    RC_ASSERT(out.starts == out.ends + out.preemptions);
    if (policy == QueuePolicyKind::kFifo) RC_ASSERT(std::ranges::is_sorted(out.first_start_s));
    RC_ASSERT(out.log_hash == run_queue(jobs, setting).log_hash);
  }
}

RC_GTEST_PROP(Queue, NobodyWaitsBesideAFreeGpuThatWouldDo, ()) {
  const auto jobs = random_jobs({1}, true);
  for (QueuePolicyKind policy : kPolicies) {
    const QueueOutcome out = run_queue(jobs, {.policy = policy, .nodes = 1, .gpus_per_node = 4});
    for (const QueueSample& sample : out.samples.all()) RC_ASSERT(sample.waiting == 0 || sample.gpus == 4);
  }
}

/// Nodes of one GPU, so that a count says what fits.
RC_GTEST_PROP(Queue, EasyNeverDelaysTheFirstOfTheQueue, ()) {
  const auto jobs = random_jobs({1, 2, 3, 5, 8}, true);
  const QueueOutcome out =
      run_queue(jobs, {.policy = QueuePolicyKind::kBackfill, .nodes = 8, .gpus_per_node = 1});
  for (size_t head = 0; head < jobs.size(); ++head) {
    double first_s = jobs[head].submit_s;  // since when it is the first
    for (size_t i = 0; i < head; ++i) first_s = std::max(first_s, out.first_start_s[i]);
    std::vector<std::pair<double, int32_t>> running;
    int32_t free = 8;
    for (size_t i = 0; i < jobs.size(); ++i) {
      const bool before = out.first_start_s[i] < first_s || (out.first_start_s[i] == first_s && i < head);
      if (!before || out.end_s[i] <= first_s) continue;
      running.emplace_back(out.end_s[i], jobs[i].gpus);
      free -= jobs[i].gpus;
    }
    std::ranges::sort(running);
    double promised_s = first_s;
    for (size_t i = 0; free < jobs[head].gpus; ++i) {
      RC_ASSERT(i < running.size());
      promised_s = running[i].first;
      free += running[i].second;
    }
    RC_ASSERT(out.first_start_s[head] <= promised_s);
  }
}

}  // namespace
}  // namespace th::sim
