#include "access/rate_limit.h"

#include <gtest/gtest.h>

namespace th::access {
namespace {

constexpr int64_t kS = 1'000'000'000;

TEST(RateLimit, GivesABurstAndThenOneEachInterval) {
  RateLimit limit({.burst = 3, .interval_ns = 10 * kS});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limit.take("a", 0), 0) << i;
  EXPECT_EQ(limit.take("a", 0), 10 * kS);
  EXPECT_EQ(limit.take("a", 4 * kS), 6 * kS);
  EXPECT_EQ(limit.take("b", 4 * kS), 0) << "another one";
  EXPECT_EQ(limit.take("a", 10 * kS), 0);
  EXPECT_EQ(limit.take("a", 10 * kS), 10 * kS);
  EXPECT_EQ(limit.take("a", 100 * kS), 0);
  EXPECT_EQ(limit.take("a", 100 * kS), 0);
  EXPECT_EQ(limit.take("a", 100 * kS), 0);
  EXPECT_NE(limit.take("a", 100 * kS), 0) << "never more than the burst";
}

TEST(RateLimit, WhatIsCountedOverTheRateKeepsNobodyOutForLonger) {
  RateLimit limit({.burst = 2, .interval_ns = kS});
  for (int i = 0; i < 1000; ++i) limit.count("a", 0);
  EXPECT_EQ(limit.wait_ns("a", 0), kS);
  EXPECT_EQ(limit.wait_ns("a", kS), 0);
}

TEST(RateLimit, MemoryIsBounded) {
  RateLimit limit({.burst = 1, .interval_ns = kS}, 100);
  for (int i = 0; i < 1000; ++i) limit.take("who-" + std::to_string(i), i);
  EXPECT_EQ(limit.entries(), 100u);
  EXPECT_NE(limit.wait_ns("who-999", 1000), 0) << "the last ones are kept";
  limit.take("late", 10 * kS);
  EXPECT_EQ(limit.entries(), 1u) << "buckets that are full again are nobody's";
}

TEST(RateLimit, GroupsPeers) {
  EXPECT_EQ(peer_group("10.0.0.1:4711"), "10.0.0.1");
  EXPECT_EQ(peer_group("2001:db8:1:2:3:4:5:6:4711"), "2001:db8:1:2::/64");
  EXPECT_EQ(peer_group("2001:db8:1:2::9:4711"), peer_group("2001:db8:1:2:aaaa::1:80"));
  EXPECT_NE(peer_group("2001:db8:1:3::9:4711"), peer_group("2001:db8:1:2::9:4711"));
  EXPECT_EQ(peer_group("::ffff:10.0.0.1:80"), "10.0.0.1");
  EXPECT_EQ(peer_group(""), "");
}

}  // namespace
}  // namespace th::access
