#include "gateway/quota.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "gateway/replicas.h"

namespace th::gateway {
namespace {

// 600 tokens a minute: 10 a second, one every 100 ms.
TEST(TokenBucket, TakesAndRefillsByHand) {
  TokenBucket bucket(600, 0);
  EXPECT_EQ(bucket.remaining(0), 600);
  EXPECT_TRUE(bucket.take(500, 0));
  EXPECT_EQ(bucket.remaining(0), 100);
  EXPECT_FALSE(bucket.take(101, 0));
  EXPECT_EQ(bucket.wait_ns(101, 0), 100 * kMillisecond);
  EXPECT_EQ(bucket.wait_ns(250, 0), 15 * kSecond);
  EXPECT_FALSE(bucket.take(250, 15 * kSecond - 1));
  EXPECT_TRUE(bucket.take(250, 15 * kSecond));
  EXPECT_EQ(bucket.remaining(15 * kSecond), 0);
  EXPECT_EQ(bucket.remaining(75 * kSecond), 600);
  EXPECT_EQ(bucket.remaining(kHour), 600);  // never more than a minute's worth
}

TEST(TokenBucket, RefillLosesNothingInSmallSteps) {
  TokenBucket bucket(7, 0);  // one token every 8571428571.43 ns
  ASSERT_TRUE(bucket.take(7, 0));
  for (int64_t now = 0; now < kMinute; now += 12'345'678) bucket.remaining(now);
  EXPECT_EQ(bucket.remaining(kMinute - 1), 6);
  EXPECT_EQ(bucket.remaining(kMinute), 7);
}

TEST(TokenBucket, RealUsageCorrectsTheEstimate) {
  TokenBucket bucket(600, 0);
  ASSERT_TRUE(bucket.take(300, 0));
  bucket.correct(300, 120, 0);
  EXPECT_EQ(bucket.remaining(0), 480);
  ASSERT_TRUE(bucket.take(400, 0));
  bucket.correct(400, 1000, 0);  // 480 - 1000 = -520
  EXPECT_EQ(bucket.remaining(0), 0);
  EXPECT_EQ(bucket.wait_ns(1, 0), 52 * kSecond + 100 * kMillisecond);
}

TEST(TokenBucket, ARequestLargerThanTheBucketWaitsForAFullOne) {
  TokenBucket bucket(600, 0);
  EXPECT_TRUE(bucket.take(5000, 0));
  EXPECT_EQ(bucket.wait_ns(5000, 0), kMinute);
  bucket.correct(5000, 60, 0);  // 600 were taken
  EXPECT_EQ(bucket.remaining(0), 540);
}

TEST(TokenBucket, DebtAndLimitsAreBoundedAtTheLargestValues) {
  TokenBucket bucket(INT64_MAX, 0);
  EXPECT_EQ(bucket.tokens_per_minute(), TokenBucket::kMaxTokensPerMinute);
  for (int i = 0; i < 20; ++i) bucket.correct(0, INT64_MAX, 0);
  EXPECT_EQ(bucket.wait_ns(1, 0), 8 * kMinute + 6'000);  // a token takes 6 µs at 10 million a minute
  EXPECT_EQ(bucket.remaining(INT64_MAX), TokenBucket::kMaxTokensPerMinute);
  bucket.correct(INT64_MAX, 0, INT64_MAX);
  EXPECT_EQ(bucket.remaining(INT64_MAX), TokenBucket::kMaxTokensPerMinute);
}

TEST(TokenBucket, ANewLimitKeepsTheBalanceAsFarAsItFits) {
  TokenBucket bucket(600, 0);
  ASSERT_TRUE(bucket.take(500, 0));
  bucket.set_limit(1200, 0);
  EXPECT_EQ(bucket.remaining(0), 100);
  bucket.set_limit(60, 0);
  EXPECT_EQ(bucket.remaining(0), 60);
}

TEST(Quotas, TellWhatIsLeftAndWhenToComeBack) {
  Quotas quotas;
  auto first = quotas.take("demo", 600, 450, 0);
  EXPECT_TRUE(first.admitted);
  EXPECT_EQ(first.limit_tokens, 600);
  EXPECT_EQ(first.remaining_tokens, 150);
  EXPECT_EQ(first.reset_ns, 45 * kSecond);
  auto second = quotas.take("demo", 600, 200, 0);
  EXPECT_FALSE(second.admitted);
  EXPECT_EQ(second.retry_after_ns, 5 * kSecond);
  EXPECT_EQ(second.remaining_tokens, 150);
  EXPECT_TRUE(quotas.take("other", 600, 600, 0).admitted);
  quotas.correct("demo", 450, 50, 0);
  EXPECT_TRUE(quotas.take("demo", 600, 200, 0).admitted);
  EXPECT_TRUE(quotas.take("free", 0, 1'000'000'000, 0).admitted);
  EXPECT_EQ(quotas.take("free", 0, 1, 0).limit_tokens, 0);
}

TEST(ReplicaPool, TheLeastBusyServesAndOneThatFailedIsAvoidedForASecond) {
  ReplicaPool pool;
  const std::vector<Replica> replicas = {{"a", "http://a"}, {"b", "http://b"}, {"c", "http://c"}};
  auto pick = [&](int64_t now_ns, std::set<std::string> tried = {}) {
    return pool.acquire(replicas, tried, now_ns)->id;
  };
  EXPECT_EQ(pick(0), "a");
  EXPECT_EQ(pick(0), "b");
  EXPECT_EQ(pick(0), "c");
  EXPECT_EQ(pick(0), "a");  // all have one: the one chosen longest ago
  EXPECT_EQ(pool.outstanding(replicas[0]), 2);
  pool.release(replicas[2], /*failed=*/false, 0);
  EXPECT_EQ(pick(0), "c");
  pool.release(replicas[2], /*failed=*/true, 0);  // idle, but it failed just now
  EXPECT_EQ(pick(kSecond - 1), "b");
  EXPECT_EQ(pick(kSecond), "c");
  EXPECT_EQ(pick(kSecond, {"http://c"}), "a");
  EXPECT_FALSE(pool.acquire(replicas, {"http://a", "http://b", "http://c"}, kSecond).has_value());
  EXPECT_FALSE(pool.acquire({}, {}, kSecond).has_value());
}

}  // namespace
}  // namespace th::gateway
