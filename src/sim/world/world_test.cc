// The cloud's misbehaviours one by one, the recount's rules on events made by hand, and planted bugs.

#include <gtest/gtest.h>

#include "base/units.h"
#include "sim/world/chaos.h"
#include "sim/world/cloud.h"
#include "sim/world/llama3.h"
#include "sim/world/recount.h"

namespace th::sim {
namespace {

std::shared_ptr<const fleet::Fleet> four_hosts() {
  fleet::GenerateOptions options;
  options.hosts_per_rack = 4, options.rack_power_budget_w = 215;  // three of four at 30 + 2 * 20 W
  return std::make_shared<const fleet::Fleet>(*fleet::generate_fleet(options));
}

class CloudTest : public ::testing::Test {
 protected:
  cloud::CreateVms two() const {
    return {"slice-1", {{"a", "l0r0h0", "LOCAL", 2}, {"b", "l0r0h1", "LOCAL", 2}}, {}, {}};
  }
  void pass(int64_t ns) {
    bool there = false;
    clock.after(ns, [&] { there = true; });
    while (!there) clock.run_next();
  }
  Clock clock{1, kHour};
  SimCloud cloud{clock, 1, four_hosts()};
};

TEST_F(CloudTest, AWorkingOneMakesAllAndTheSameTokenMakesNothingNew) {
  ASSERT_TRUE(cloud.create(two(), 30 * kSecond));
  const int64_t serial = cloud.machines().at("a").serial;
  ASSERT_TRUE(cloud.create(two(), 30 * kSecond));
  EXPECT_EQ(cloud.machines().at("a").serial, serial);
  EXPECT_EQ(cloud.list(kSecond)->size(), 2u);
  cloud::CreateVms other{"slice-2", {{"c", "l0r0h0", "LOCAL", 2}}, {}, {}};
  EXPECT_EQ(cloud.create(other, kSecond).error().code, Code::kResourceExhausted) << "a host has one VM";
  ASSERT_TRUE(cloud.remove("a", kSecond));
  EXPECT_TRUE(cloud.create(other, kSecond));
}

TEST_F(CloudTest, EachMisbehaviourDoesWhatItSays) {
  cloud.faults.fails = 1000;
  EXPECT_EQ(cloud.create(two(), 30 * kSecond).error().code, Code::kUnavailable);
  EXPECT_TRUE(cloud.machines().empty());
  cloud.faults = {};
  cloud.faults.hangs = 1000;
  EXPECT_EQ(cloud.create(two(), 30 * kSecond).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(cloud.latency_ns(), 30 * kSecond);
  EXPECT_TRUE(cloud.machines().empty());
  cloud.faults = {};
  cloud.faults.half = 1000;
  EXPECT_FALSE(cloud.create(two(), 30 * kSecond));
  EXPECT_EQ(cloud.machines().size(), 1u);
  cloud.faults = {};
  cloud.faults.answer_lost = 1000;
  EXPECT_FALSE(cloud.create(two(), 30 * kSecond));
  EXPECT_EQ(cloud.machines().size(), 2u);
  EXPECT_FALSE(cloud.remove("a", 30 * kSecond));
  EXPECT_EQ(cloud.machines().count("a"), 0u);
  cloud.faults = {};
  cloud.faults.done_late = 1000;
  EXPECT_FALSE(cloud.create(two(), 30 * kSecond));
  EXPECT_EQ(cloud.machines().count("a"), 0u);
  pass(5 * kMinute);
  EXPECT_EQ(cloud.machines().count("a"), 1u);
  cloud.faults = {};
  cloud.faults.done_twice = 1000;
  ASSERT_TRUE(cloud.create(two(), 30 * kSecond));
  ASSERT_TRUE(cloud.remove("a", kSecond));
  pass(6 * kMinute);
  EXPECT_EQ(cloud.machines().count("a"), 1u) << "it came back";
}

TEST_F(CloudTest, ABrokenHostKillsItsVmAndTakesNoneUntilItIsRepaired) {
  ASSERT_TRUE(cloud.create(two(), 30 * kSecond));
  cloud.break_host("l0r0h0");
  EXPECT_EQ(cloud.describe("a", kSecond)->phase, cloud::VmPhase::kDead);
  ASSERT_TRUE(cloud.remove("a", kSecond));
  EXPECT_FALSE(cloud.create(two(), kSecond));
  cloud.repair_host("l0r0h0");
  EXPECT_TRUE(cloud.create(two(), kSecond));
}

class RecountTest : public ::testing::Test {
 protected:
  void take(ledger::Event event, int64_t at_ns) { recount.take({++seq_, at_ns, std::move(event)}); }
  ledger::SliceHeld held(const std::string& id, const std::vector<std::string>& hosts, int64_t start_ns = 0) {
    ledger::SliceHeld out;
    out.slice = id, out.name = id, out.series = "LOCAL", out.start_ns = start_ns,
    out.end_ns = start_ns + kHour;
    out.gpus = static_cast<int64_t>(hosts.size()) * 2, out.hold_expires_ns = start_ns + kMinute;
    out.microusd_per_gpu_hour = 100'000, out.price_microusd = out.gpus * 100'000;
    for (const std::string& host : hosts) out.hosts.push_back({host, "l0r0", "l0", 2});
    return out;
  }
  std::shared_ptr<const fleet::Fleet> fleet = four_hosts();
  std::vector<std::string> rules;
  Recount recount{*fleet, {}, [this](const char* rule, const std::string&) { rules.push_back(rule); }};

 private:
  int64_t seq_ = 0;
};

using Rules = std::vector<std::string>;

TEST_F(RecountTest, OneHostForTwoAtATimeIsADoubleLeaseAndOneAfterTheOtherIsNot) {
  take(held("slice-1", {"l0r0h0"}), 0);
  take(held("slice-2", {"l0r0h0"}, kHour), 0);
  EXPECT_EQ(rules, Rules());
  take(held("slice-3", {"l0r0h0"}, kHour / 2), 1);
  EXPECT_EQ(rules, (Rules{kDoubleLease, kDoubleLease})) << "with both";
}

TEST_F(RecountTest, TheFourthHostOfTheRackPassesItsBudget) {
  take(held("slice-1", {"l0r0h0", "l0r0h1", "l0r0h2"}), 0);
  EXPECT_EQ(rules, Rules());
  take(held("slice-2", {"l0r0h3"}), 0);
  EXPECT_EQ(rules, Rules{kPower});
}

TEST_F(RecountTest, AReservedHostIsForThoseWhoMayAndForNobodyElse) {
  take(ledger::ReservationCreated{"class", "", kHour, 3 * kHour, false, {"l0r0h0", "l0r0h1"}, {"course"}, {}},
       0);
  auto lease = [&](const std::string& id, int64_t start_ns, const std::string& account,
                   const std::string& reservation, const std::string& host = "l0r0h0") {
    rules.clear();
    take(held(id, {host}, start_ns), 0);
    take(ledger::SliceOwned{id, account, "", "normal", reservation, false}, 0);
    take(ledger::SliceExpired{id, ""}, 0);
    return rules;
  };
  EXPECT_EQ(lease("before", 0, "lab", ""), Rules());
  EXPECT_EQ(lease("runs-into-it", kMinute, "lab", ""), Rules{kDoubleLease});
  EXPECT_EQ(lease("inside", kHour, "course", "class"), Rules());
  EXPECT_EQ(lease("of-another", kHour, "lab", "class"), Rules{kDoubleLease});
  EXPECT_EQ(lease("elsewhere", kHour, "course", "class", "l0r0h2"), Rules{kDoubleLease});
  EXPECT_EQ(lease("too-long", 2 * kHour + 1, "course", "class"), Rules{kDoubleLease});
  take(ledger::ReservationEnded{"class", ""}, 0);
  EXPECT_EQ(lease("after", 2 * kHour, "lab", ""), Rules());
}

TEST_F(RecountTest, ALeasedHostCannotBeReserved) {
  take(held("slice-1", {"l0r0h0"}), 0);
  take(ledger::ReservationCreated{"later", "", kHour, 2 * kHour, true, {"l0r0h0"}, {}, {}}, 0);
  EXPECT_EQ(rules, Rules());
  take(ledger::ReservationCreated{"now", "", 0, 2, true, {"l0r0h0"}, {}, {}}, 0);
  EXPECT_EQ(rules, Rules{kDoubleLease});
}

TEST_F(RecountTest, ASliceThatIsHandedOverWithoutOneNodeIsHalfPlaced) {
  take(held("slice-1", {"l0r0h0", "l0r0h1"}), 0);
  take(ledger::SliceCommitted{"slice-1", ""}, 1);
  take(ledger::VmRequested{"a", "slice-1", "l0r0h0", 2}, 1);
  take(ledger::VmRequested{"b", "slice-1", "l0r0h1", 2}, 1);
  take(ledger::NodeValidated{"a", "boot", "x"}, 2);
  take(ledger::SliceReady{"slice-1", ""}, 3);
  EXPECT_EQ(rules, Rules{kHalfGang});
}

TEST_F(RecountTest, MoneyIsReadyGpusByTimeUpToTheEnd) {
  take(held("slice-1", {"l0r0h0"}), 0);
  take(ledger::SliceCommitted{"slice-1", ""}, 1);
  take(ledger::VmRequested{"a", "slice-1", "l0r0h0", 2}, 1);
  take(ledger::NodeValidated{"a", "boot", "x"}, 2);
  take(ledger::SliceReady{"slice-1", ""}, 10 * kMinute);
  take(ledger::NodeDown{"a", "dead"}, 20 * kMinute);
  take(ledger::NodeValidated{"a", "boot", "x"}, 30 * kMinute);
  const auto& lease = recount.leases().at("slice-1");
  // 10 minutes and then 30 up to the end of the hour, of 2 GPUs at 0.10 dollars: 80 GPU-minutes, 13.3333
  // cents.
  EXPECT_EQ(recount.gpu_ns_at(lease, 5 * kHour), 80 * kMinute);
  EXPECT_EQ(recounted_microusd(80 * kMinute, 100'000), 133'333);
  EXPECT_EQ(rules, Rules());
}

/// One account of 4 GPUs and a dollar an hour; below the root two that lend to each other, of 2 and 4.
class AccountBooksTest : public ::testing::Test {
 protected:
  std::vector<std::string> put(const std::string& id, const std::string& account, int64_t gpus,
                               int64_t start_min, int64_t end_min, bool firm = true, int64_t microusd = 0,
                               int64_t now_min = 0) {
    return books.put(
        id,
        {account, "normal", firm, gpus, start_min * kMinute, end_min * kMinute, now_min * kMinute, microusd},
        now_min * kMinute);
  }
  AccountBooks books{{{{"course", "", 4, false, 1'000'000, 60},
                       {"city", "", {}, false, {}, 0},
                       {"north", "city", 2, true, {}, 0},
                       {"south", "city", 4, true, {}, 0}},
                      {{"normal", 500, "", 6, 0, 5}}}};
};

TEST_F(AccountBooksTest, AQuotaHoldsAtEveryMomentAndForOverdueLeases) {
  EXPECT_TRUE(put("a", "course", 2, 0, 10).empty());
  EXPECT_TRUE(put("b", "course", 2, 5, 15).empty());
  EXPECT_TRUE(put("c", "course", 2, 10, 20).empty());
  EXPECT_EQ(put("d", "course", 2, 0, 6).size(), 1u) << "6 in the sixth minute";
  books.end("d", 0);
  EXPECT_EQ(put("e", "course", 4, 20, 30, true, 0, 20).size(), 2u)
      << "a, b and c are still there: over the QOS as well";
  books.end("c", 0), books.end("b", 0), books.end("a", 0);
  EXPECT_TRUE(put("e", "course", 4, 20, 30, true, 0, 20).empty());
}

TEST_F(AccountBooksTest, WhatIsBorrowedIsWhatSiblingsHaveAndNobodysForGood) {
  EXPECT_TRUE(put("a", "north", 5, 0, 10, false).empty());
  EXPECT_TRUE(put("b", "south", 1, 0, 10).empty());
  EXPECT_EQ(put("c", "south", 1, 0, 10).size(), 1u) << "7 of 6 together";
  books.end("c", 0), books.end("a", 0);
  EXPECT_EQ(put("d", "north", 3, 0, 10).size(), 1u) << "3 of 2 for good";
  EXPECT_EQ(put("e", "south", 7, 20, 30, false).size(), 2u) << "over the QOS as well";
}

TEST_F(AccountBooksTest, ABudgetIsFullPricesOfWhatLivesAndCostsOfWhatEnded) {
  EXPECT_TRUE(put("a", "course", 1, 0, 10, true, 700'000).empty());
  EXPECT_EQ(put("b", "course", 1, 0, 10, true, 300'001).size(), 1u);
  books.end("b", 0), books.end("a", 400'000);
  EXPECT_TRUE(put("c", "course", 1, 20, 30, true, 600'000, 20).empty());
  EXPECT_TRUE(put("d", "course", 1, 60, 90, true, 1'000'000, 60).empty()) << "the next hour";
  EXPECT_EQ(books.committed("course", 59 * kMinute), 1'000'000);
  EXPECT_EQ(put("c", "course", 2, 20, 90, true, 600'001, 60).size(), 1u) << "grown, in its own period";
}

TEST_F(RecountTest, GrowingCountsAtOnceAndNotAnyMoreWhenItFailed) {
  const TenantRules tenants = {{{"course", "", 2, false, {}, 0}}, {}};
  Recount of(*fleet, tenants, [this](const char* rule, const std::string&) { rules.push_back(rule); });
  int64_t seq = 0;
  auto next = [&](ledger::Event event) { of.take({++seq, 0, std::move(event)}); };
  next(held("slice-1", {"l0r0h0"}));
  next(ledger::SliceOwned{"slice-1", "course", "ada", "normal", "", false});
  EXPECT_EQ(rules, Rules());
  next(ledger::SliceResizing{"slice-1", 4, 400'000, {{"l0r0h1", "l0r0", "l0", 2}}});
  EXPECT_EQ(rules, Rules{kQuota});
  next(ledger::SliceResizeFailed{"slice-1", "no node"});
  EXPECT_EQ(rules, Rules{kQuota});
  next(ledger::SliceResizing{"slice-1", 4, 399'999, {{"l0r0h1", "l0r0", "l0", 2}}});
  EXPECT_EQ(rules, (Rules{kQuota, kMoney, kQuota}));
}

TEST(Chaos, PlantedBugsAreFoundAndTheirAbsenceIsToo) {
  ChaosOptions options;
  options.steps = 6'000, options.steps_per_round = 3'000, options.max_violations = 1;
  EXPECT_EQ(run_chaos(options)->violations.size(), 0u);
  for (const auto& [plant, rule] : {std::pair("double-lease", kDoubleLease),
                                    {"half-gang", kHalfGang},
                                    {"quota", kQuota},
                                    {"lost-reservation", kLostAck},
                                    {"double-meter", kMoney},
                                    {"orphan-replica", kBroken}}) {
    options.plant = plant;
    for (options.seed = 1; options.seed <= 3; ++options.seed) {
      const auto result = run_chaos(options);
      ASSERT_TRUE(result && !result->violations.empty()) << plant << ", seed " << options.seed;
      EXPECT_EQ(result->violations[0].rule, rule);
    }
  }
  options.plant = "nonsense";
  EXPECT_EQ(run_chaos(options).error().code, Code::kInvalidArgument);
}

TEST(Llama3, YoungsIntervalByHand) { EXPECT_DOUBLE_EQ(young_interval_s(2, 10'000), 200); }

TEST(Llama3, WithoutSpareHostsItWaitsForRepairsAndWithThemItDoesNot) {
  Llama3Options options;
  options.gpus = 1024, options.spares_per_block = 0;
  const auto without = run_llama3(options);
  options.spares_per_block = 1;
  const auto with = run_llama3(options);
  ASSERT_TRUE(without && with);
  EXPECT_GT(without->waited_for_hosts_s, 10 * 3600) << "about 26 faults, most of them a day's repair";
  EXPECT_EQ(with->waited_for_hosts_s, 0);
  EXPECT_LT(without->ettr, with->ettr);
}

}  // namespace
}  // namespace th::sim
