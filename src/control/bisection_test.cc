#include "control/bisection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace th::control {
namespace {

std::vector<std::string> names(int count) {
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.push_back("n" + std::to_string(i));
  return out;
}

struct Found {
  std::vector<std::string> slow;
  bool passed = false;
  int rounds = 0;
};

/// A part is slow with a slow member in it.
Found find(int count, const std::set<std::string>& bad) {
  Bisection bisection(names(count));
  Found out;
  while (!bisection.round().empty()) {
    std::set<std::string> seen;
    std::vector<bool> fast;
    for (const auto& part : bisection.round()) {
      EXPECT_GE(part.size(), 2u);
      for (const std::string& one : part)
        EXPECT_TRUE(seen.insert(one).second) << one << " is measured twice at once";
      fast.push_back(std::ranges::none_of(part, [&](const std::string& one) { return bad.count(one) > 0; }));
    }
    bisection.take(fast);
    ++out.rounds;
  }
  out.slow = bisection.slow(), out.passed = bisection.passed();
  std::ranges::sort(out.slow);
  return out;
}

TEST(Bisection, WhatIsFastIsMeasuredOnce) {
  const Found found = find(16, {});
  EXPECT_TRUE(found.passed);
  EXPECT_EQ(found.rounds, 1);
}

TEST(Bisection, FindsWhoeverIsSlowAndNobodyElse) {
  for (int count = 3; count <= 33; ++count) {
    for (int bad = 0; bad < count; ++bad) {
      const std::string name = "n" + std::to_string(bad);
      const Found found = find(count, {name});
      EXPECT_FALSE(found.passed);
      EXPECT_EQ(found.slow, std::vector<std::string>{name}) << count;
      EXPECT_LE(found.rounds, 9) << count;
    }
  }
  EXPECT_EQ(find(16, {"n3", "n12"}).slow, (std::vector<std::string>{"n12", "n3"}));
  EXPECT_EQ(find(5, {"n0", "n1", "n2"}).slow, (std::vector<std::string>{"n0", "n1", "n2"}));
}

TEST(Bisection, WithoutAFastOneAllAreSlow) {
  EXPECT_EQ(find(2, {"n1"}).slow.size(), 2u) << "which of two it is cannot be told";
  EXPECT_EQ(find(5, {"n0", "n1", "n2", "n3", "n4"}).slow.size(), 5u);
  EXPECT_EQ(find(4, {"n0", "n2"}).slow, (std::vector<std::string>{"n0", "n2"})) << "each half has one";
}

TEST(Bisection, TellsWhenOnlyAllTogetherAreSlow) {
  Bisection bisection(names(4));
  bisection.take({false});
  bisection.take({true, true});
  EXPECT_TRUE(bisection.round().empty());
  EXPECT_FALSE(bisection.passed());
  EXPECT_TRUE(bisection.slow().empty());
}

}  // namespace
}  // namespace th::control
