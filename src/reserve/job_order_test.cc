#include "reserve/job_order.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

namespace th::reserve {
namespace {

/// `count` jobs of one size, a second apart, that ended after `service_s`.
void teach(JobOrder& order, int count, int32_t gpus, double service_s) {
  for (int i = 0; i < count; ++i) {
    JobOrder::Job job = order.submit(i, gpus);
    order.end(job, service_s);
  }
}

TEST(JobOrder, KnownDurationsGoByRemainingWorkAndLargeJobsSlightlyFirst) {
  EXPECT_DOUBLE_EQ(known_duration_key(100, 1), 100);
  EXPECT_NEAR(known_duration_key(100, 8), 721.0, 0.1);  // 100 × 8^0.95
  EXPECT_LT(known_duration_key(100, 8), known_duration_key(800, 1));
}

// By hand with the hazard 1 − 1.3^−0.7 = 0.1678 in every bin of 30, 9, 11.7, 15.21, … seconds: the chance of
// ending over the expected service is 0.00610, 0.00895, 0.01014, 0.01045, 0.01027 when one stops after the
// first, second, … bin.
TEST(JobOrder, BeforeAnythingIsLearntTheKeyIsThatOfThePrior) {
  JobOrder order;
  const auto one = order.submit(0, 1), eight = order.submit(0, 8);
  EXPECT_NEAR(order.key(one), 1 / 0.01045, 0.2);
  EXPECT_NEAR(order.key(eight), 8 / 0.01045, 1.6);
}

TEST(JobOrder, AJobThatRanLongIsExpectedToRunLonger) {
  JobOrder order;
  const auto fresh = order.submit(0, 1), old = order.submit(0, 1);
  order.serve(old, 10'000);
  EXPECT_GT(order.key(old), 10 * order.key(fresh));
}

TEST(JobOrder, LearnsFromNeighboursOfTheSameSize) {
  JobOrder order;
  teach(order, 20, 4, 1000);
  const auto near_end = order.submit(20, 4), other_size = order.submit(20, 2);
  order.serve(near_end, 900);
  order.serve(other_size, 900);
  // Nearly all end in the bin of 1,000 s that starts at 893: the best chance is to wait about 100 s for it.
  EXPECT_LT(order.key(near_end) / 4, 300);
  EXPECT_LT(order.key(near_end) / 4, order.key(other_size) / 2);
  order.serve(near_end, 5000);
  EXPECT_GT(order.key(near_end) / 4, 2000);
}

TEST(JobOrder, JobsThatGoOnCountAsSurvivors) {
  JobOrder ended, running;
  for (int i = 0; i < 10; ++i) {
    ended.end(ended.submit(i, 1), 100);
    running.serve(running.submit(i, 1), 100);
  }
  EXPECT_GT(running.key(running.submit(10, 1)), 2 * ended.key(ended.submit(10, 1)));
}

TEST(JobOrder, TellsWhenTheKeyPasses) {
  JobOrder order;
  const auto job = order.submit(0, 1);
  const double limit = 10 * order.key(job);
  const double at_s = order.passes_at(job, limit, 0, 1e9);
  ASSERT_LT(at_s, 1e9);
  EXPECT_EQ(order.passes_at(job, limit, 0, at_s * 0.99), std::numeric_limits<double>::infinity());
  order.serve(job, at_s);
  EXPECT_GT(order.key(job), limit);
}

RC_GTEST_PROP(JobOrder, KeysArePositiveAndFollowFromWhatWasTold, ()) {
  JobOrder order;
  std::vector<JobOrder::Job> live;
  double now_s = 0;
  for (int step = *rc::gen::inRange(1, 60); step > 0; --step) {
    now_s += *rc::gen::inRange(0, 2000);
    if (live.empty() || *rc::gen::inRange(0, 2) == 0) {
      live.push_back(order.submit(now_s, 1 << *rc::gen::inRange(0, 6)));
      continue;
    }
    const auto which = *rc::gen::inRange<size_t>(0, live.size());
    const double service_s = order.service_s(live[which]) + *rc::gen::inRange(0, 1'000'000);
    if (*rc::gen::inRange(0, 2) == 0) {
      order.serve(live[which], service_s);
    } else {
      order.end(live[which], service_s);
      live.erase(live.begin() + static_cast<ptrdiff_t>(which));
    }
  }
  order.renew();
  for (auto job : live) {
    const double key = order.key(job);
    RC_ASSERT(std::isfinite(key) && key > 0);
    RC_ASSERT(order.key(job) == key);
  }
}

}  // namespace
}  // namespace th::reserve
