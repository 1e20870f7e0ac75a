#include "reserve/reserve.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/units.h"

namespace th::reserve {
namespace {

// The desk: racks r1 (hosts 0, 1) and r2 (2, 3) of 150 W, each on a leaf of its own. A LOCAL host has 2 GPUs
// and in use draws 30 + 2 * 20 = 70 W, a GPU-hour costs $0.10.
std::shared_ptr<const Fleet> desk(const std::string& from = "", const std::string& to = "") {
  std::string text = *read_file(std::string(TH_SOURCE_DIR) + "/recipes/fleet/desk.yaml");
  for (size_t at = 0; !from.empty() && (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return std::make_shared<const Fleet>(*fleet::parse_fleet(text, "desk.yaml"));
}

constexpr int64_t kNow = 1000 * kHour;

Request ask(int64_t gpus, int64_t duration_ns = kHour, int64_t start_ns = 0) {
  return {"demo", gpus, "LOCAL", duration_ns, start_ns, std::nullopt};
}

Snapshot claimed(const Snapshot& snapshot, std::string id, int64_t start_ns, int64_t end_ns,
                 std::vector<HostGpus> hosts) {
  auto next = snapshot.with_claim({std::move(id), start_ns, end_ns, std::move(hosts)});
  EXPECT_TRUE(next.has_value()) << next.error().message;
  return *next;
}

std::vector<HostIndex> hosts_of(const Plan& plan) {
  std::vector<HostIndex> hosts;
  for (const HostGpus& part : plan.hosts) hosts.push_back(part.host);
  return hosts;
}

using Hosts = std::vector<HostIndex>;

TEST(DecideTest, TakesOneLeafAndPricesIt) {
  auto plan = decide(Snapshot(desk()), ask(4), {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->hosts, (std::vector<HostGpus>{{0, 0b11}, {1, 0b11}}));
  EXPECT_EQ(plan->gpus, 4);
  EXPECT_EQ(plan->start_ns, kNow);
  EXPECT_EQ(plan->end_ns, kNow + kHour);
  EXPECT_EQ(plan->price_microusd, 400'000);
  EXPECT_EQ(
      plan->explanation,
      "2 hosts on leaf switch leaf1 (4 GPUs): one leaf holds the gang, and none that does has fewer GPUs "
      "left over; at most rack r1 140 of 150 W");
}

TEST(DecideTest, TakesTheTightestLeaf) {
  Snapshot snapshot = claimed(Snapshot(desk()), "a", kNow, kNow + kHour, {{0, 3}});
  EXPECT_EQ(hosts_of(*decide(snapshot, ask(2), {}, kNow)), (Hosts{1}));
  EXPECT_EQ(hosts_of(*decide(snapshot, ask(4), {}, kNow)), (Hosts{2, 3}));
}

TEST(DecideTest, SpansTheFewestLeaves) {
  auto plan = decide(Snapshot(desk()), ask(6), {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(hosts_of(*plan), (Hosts{0, 1, 2}));
  EXPECT_NE(plan->explanation.find("leaf switches leaf1 (4 GPUs), leaf2 (2 GPUs): no single leaf has room"),
            std::string::npos)
      << plan->explanation;
}

TEST(DecideTest, GivesWholeHosts) {
  auto plan = decide(Snapshot(desk()), ask(3), {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->gpus, 4);
  EXPECT_EQ(plan->price_microusd, 400'000);
  EXPECT_NE(plan->explanation.find("3 GPUs asked, and whole hosts of LOCAL come to 4"), std::string::npos);
}

TEST(DecideTest, MoreThanExistsSaysWhatIsThereAndWhatFits) {
  Snapshot snapshot = claimed(Snapshot(desk()), "a", kNow, kNow + kHour, {{0, 3}});
  auto refusal = decide(snapshot, ask(16), {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kNotEnoughGpus);
  EXPECT_EQ(refusal.error().text,
            "16 GPUs of LOCAL for 1h can never start: fleet 'desk' has 8 GPUs, of which 6 free then");
  ASSERT_EQ(refusal.error().changes.size(), 1u);
  EXPECT_EQ(refusal.error().changes[0].gpus, 6);
  EXPECT_FALSE(refusal.error().later.has_value());
  EXPECT_EQ(refusal.error().error().code, Code::kUnsatisfiable);
}

TEST(DecideTest, BusyTellsWhenAndWhatWouldDo) {
  // Hosts 0-2 are taken for 3 hours, host 3 from 30 minutes on for one hour.
  Snapshot snapshot = claimed(Snapshot(desk()), "big", kNow, kNow + 3 * kHour, {{0, 3}, {1, 3}, {2, 3}});
  snapshot = claimed(snapshot, "small", kNow + 30 * kMinute, kNow + 90 * kMinute, {{3, 3}});
  auto refusal = decide(snapshot, ask(2), {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kBusy);
  ASSERT_TRUE(refusal.error().later.has_value());
  EXPECT_EQ(refusal.error().later->start_ns, kNow + 90 * kMinute);
  EXPECT_EQ(hosts_of(*refusal.error().later), (Hosts{3}));
  // Shorter by half; or the smaller of the two claims that each suffice.
  ASSERT_EQ(refusal.error().changes.size(), 2u);
  EXPECT_EQ(refusal.error().changes[0].duration_ns, 30 * kMinute);
  EXPECT_EQ(refusal.error().changes[0].size_ppm, 500'000);
  EXPECT_EQ(refusal.error().changes[0].text, "shorten to 30m");
  EXPECT_EQ(refusal.error().changes[1].release_claims, (std::vector<std::string>{"small"}));
  EXPECT_NE(refusal.error().text.find("of 8 in site desk, 0 free, 8 taken (big, small) until"),
            std::string::npos)
      << refusal.error().text;
  EXPECT_EQ(refusal.error().error().code, Code::kFailedPrecondition);
}

TEST(DecideTest, DrainedHostsAreNotUsedAndAreNamed) {
  Snapshot snapshot = Snapshot(desk()).with_out_of_use(1, "fan");
  auto refusal = decide(snapshot, ask(8), {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kDrained);
  EXPECT_FALSE(refusal.error().later.has_value());  // as things stand it never starts
  EXPECT_NE(refusal.error().text.find("2 out of use (r1h2: fan)"), std::string::npos) << refusal.error().text;
  // 2 of 8 GPUs either way.
  ASSERT_EQ(refusal.error().changes.size(), 2u);
  EXPECT_EQ(refusal.error().changes[0].text, "ask for 6 GPUs");
  EXPECT_EQ(refusal.error().changes[1].return_hosts, (Hosts{1}));
  EXPECT_EQ(refusal.error().changes[1].text, "return r1h2 to use");
  EXPECT_TRUE(decide(snapshot.with_out_of_use(1, std::nullopt), ask(8), {}, kNow).has_value());
}

TEST(DecideTest, PowerIsCountedOverTheWindow) {
  // 100 W a rack: one host of 70 W, and 40 W short for the second.
  auto fleet = desk("power_budget_w: 150", "power_budget_w: 100");
  EXPECT_EQ(hosts_of(*decide(Snapshot(fleet), ask(4), {}, kNow)), (Hosts{0, 2}));
  auto refusal = decide(Snapshot(fleet), ask(6), {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kPower);
  EXPECT_FALSE(refusal.error().later.has_value());
  const Change& change = refusal.error().changes[0];  // 40 of 210 W is less than 2 of 6 GPUs
  ASSERT_EQ(change.raise_power.size(), 1u);
  EXPECT_EQ(change.raise_power[0].index, 0);
  EXPECT_EQ(change.raise_power[0].raise_w, 40);
  EXPECT_EQ(change.text, "raise rack r1's budget by 40 W");
  EXPECT_EQ(refusal.error().changes[1].gpus, 4);

  // A claim that starts within the window uses the rack's power, so the neighbour has to wait for its end.
  Snapshot snapshot = claimed(Snapshot(fleet), "a", kNow + 30 * kMinute, kNow + 2 * kHour, {{0, 3}});
  snapshot = claimed(snapshot, "b", kNow, kNow + 4 * kHour, {{2, 3}});
  auto later = decide(snapshot, ask(2), {}, kNow);
  ASSERT_FALSE(later.has_value());
  EXPECT_EQ(later.error().later->start_ns, kNow + 2 * kHour);
  EXPECT_TRUE(decide(snapshot, ask(2, 30 * kMinute), {}, kNow).has_value());
  EXPECT_EQ(snapshot.rack_power_w(0, kNow), 0);
  EXPECT_EQ(snapshot.rack_power_w(0, kNow + 30 * kMinute), 70);
  EXPECT_EQ(snapshot.rack_power_w(0, kNow + 2 * kHour), 0);
}

TEST(DecideTest, WaitsForTheStartAskedFor) {
  auto plan = decide(Snapshot(desk()), ask(2, kHour, kNow + 5 * kHour), {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->start_ns, kNow + 5 * kHour);
}

TEST(DecideTest, UnknownSeries) {
  Request request = ask(2);
  request.series = "LOCL";
  auto refusal = decide(Snapshot(desk()), request, {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kSeriesUnknown);
  EXPECT_EQ(refusal.error().text, "there is no series 'LOCL' here, did you mean 'LOCAL'?; there is LOCAL");
  ASSERT_EQ(refusal.error().changes.size(), 1u);
  EXPECT_EQ(refusal.error().changes[0].series, "LOCAL");
  request.series = "ND_A100_v4";  // in the catalogue, not on the desk
  EXPECT_EQ(decide(Snapshot(desk()), request, {}, kNow).error().reason, Reason::kSeriesUnknown);
}

TEST(DecideTest, QuotaBudgetAndPrice) {
  Policy policy;
  policy.quota.max_gpus = 5;
  policy.usage.gpus = 2;
  auto refusal = decide(Snapshot(desk()), ask(4), policy, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kQuota);
  ASSERT_EQ(refusal.error().changes.size(), 2u);
  EXPECT_EQ(refusal.error().changes[0].gpus, 2);
  EXPECT_EQ(refusal.error().changes[1].raise_quota_gpus, 6);

  policy = {};
  policy.quota.budget_microusd = 300'000;  // 45 minutes of 4 GPUs
  refusal = decide(Snapshot(desk()), ask(4), policy, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kBudget);
  ASSERT_EQ(refusal.error().changes.size(), 2u);
  EXPECT_EQ(refusal.error().changes[0].duration_ns, 45 * kMinute);
  EXPECT_EQ(refusal.error().changes[1].raise_budget_microusd, 400'000);
  EXPECT_EQ(refusal.error().error().code, Code::kResourceExhausted);

  Request request = ask(4);
  request.max_microusd_per_gpu_hour = 99'999;
  refusal = decide(Snapshot(desk()), request, {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kPrice);
  EXPECT_EQ(refusal.error().changes[0].max_microusd_per_gpu_hour, 100'000);
}

TEST(DecideTest, NonsenseIsRefused) {
  EXPECT_EQ(decide(Snapshot(desk()), ask(0), {}, kNow).error().reason, Reason::kInvalid);
  EXPECT_EQ(decide(Snapshot(desk()), ask(-4), {}, kNow).error().reason, Reason::kInvalid);
  EXPECT_EQ(decide(Snapshot(desk()), ask(2, 0), {}, kNow).error().reason, Reason::kInvalid);
  EXPECT_EQ(decide(Snapshot(desk()), ask(2, INT64_MAX), {}, kNow).error().reason, Reason::kInvalid);
  EXPECT_EQ(decide(Snapshot(desk()), ask(2, kHour, INT64_MAX), {}, kNow).error().reason, Reason::kInvalid);
}

// A slice of hosts 0 and 2 with both GPUs, and GPU 1 of host 3.
Snapshot slice() {
  const std::vector<HostGpus> hosts = {{0, 0b11}, {2, 0b11}, {3, 0b10}};
  return Snapshot::within(desk("power_budget_w: 150", "power_budget_w: 1"), hosts);
}

TEST(SliceTest, JobsGetGpusAndPowerIsNotCountedAgain) {
  Request request = ask(3);
  request.series = "";
  auto plan = decide(slice(), request, {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->hosts, (std::vector<HostGpus>{{2, 0b11}, {3, 0b10}}));  // one leaf has 3
  EXPECT_EQ(plan->price_microusd, 0);

  Snapshot busy = claimed(slice(), "job-1", kNow, kNow + kHour, {{2, 0b01}});
  plan = decide(busy, request, {}, kNow);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->hosts, (std::vector<HostGpus>{{0, 0b11}, {2, 0b10}}));
  request.gpus = 1;
  EXPECT_EQ(decide(busy, request, {}, kNow)->hosts,
            (std::vector<HostGpus>{{0, 0b01}}));  // both leaves have 2
}

TEST(SliceTest, RefusalsSpeakOfTheSlice) {
  Request request = ask(6);
  request.series = "";
  auto refusal = decide(slice(), request, {}, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().text,
            "6 GPUs for 1h can never start: the slice has 5 GPUs, of which 5 free then");
  EXPECT_EQ(refusal.error().changes[0].gpus, 5);

  Policy policy;
  policy.end_by_ns = kNow + 20 * kMinute;
  request.gpus = 5;
  refusal = decide(slice(), request, policy, kNow);
  ASSERT_FALSE(refusal.has_value());
  EXPECT_EQ(refusal.error().reason, Reason::kWindow);
  EXPECT_EQ(refusal.error().changes[0].duration_ns, 20 * kMinute);

  Snapshot down = slice().with_out_of_use(0, "down");
  EXPECT_EQ(decide(down, request, {}, kNow).error().reason, Reason::kDrained);
}

TEST(QueueTest, BackfillsWithoutDelay) {
  // Hosts 0 and 1 are taken for an hour. The first in the queue needs all 4 hosts, so it starts in an hour;
  // one host for an hour fits before it, one for two hours does not.
  Snapshot snapshot = claimed(Snapshot(desk()), "a", kNow, kNow + kHour, {{0, 3}, {1, 3}});
  const std::vector<Request> queue = {ask(8), ask(2, 2 * kHour), ask(2)};
  auto decisions = plan_queue(snapshot, queue, {}, kNow);
  ASSERT_EQ(decisions.size(), 3u);
  ASSERT_FALSE(decisions[0].has_value());
  EXPECT_EQ(decisions[0].error().later->start_ns, kNow + kHour);
  ASSERT_FALSE(decisions[1].has_value());
  EXPECT_EQ(decisions[1].error().later->start_ns, kNow + 2 * kHour);
  ASSERT_TRUE(decisions[2].has_value());
  EXPECT_EQ(hosts_of(*decisions[2]), (Hosts{2}));
}

TEST(SnapshotTest, RefusesWhatIsTakenOrNotThere) {
  Snapshot snapshot = claimed(Snapshot(desk()), "a", 10, 20, {{0, 0b01}});
  EXPECT_EQ(snapshot.with_claim({"b", 19, 30, {{0, 0b11}}}).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(snapshot.with_claim({"b", 20, 30, {{0, 0b11}}}).has_value());
  EXPECT_TRUE(snapshot.with_claim({"b", 10, 20, {{0, 0b10}}}).has_value());
  EXPECT_EQ(snapshot.with_claim({"b", 10, 10, {{1, 1}}}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(snapshot.with_claim({"b", 10, 20, {}}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(snapshot.with_claim({"b", 10, 20, {{1, 0b100}}}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(snapshot.with_claim({"b", 10, 20, {{2, 1}, {1, 1}}}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(snapshot.with_claim({"b", 10, 20, {{9, 1}}}).error().code, Code::kInvalidArgument);
}

TEST(SnapshotTest, OlderPicturesStayAsTheyWere) {
  Snapshot before(desk());
  Snapshot after = claimed(before, "a", 10, 20, {{0, 0b11}, {3, 0b01}});
  EXPECT_EQ(before.host_use(0, 15).busy, 0u);
  EXPECT_EQ(after.host_use(0, 15).busy, 0b11u);
  EXPECT_EQ(after.host_use(3, 15).busy, 0b01u);
  EXPECT_EQ(after.host_use(0, 20).busy, 0u);
  ASSERT_EQ(after.claims_on(3).size(), 1u);
  EXPECT_EQ(after.claims_on(3)[0]->id, "a");
  EXPECT_TRUE(after.without_claim(*after.claims_on(3)[0]).claims_on(0).empty());
  EXPECT_EQ(after.with_out_of_use(2, "x").host_use(2, 0).out_of_use, "x");
  EXPECT_FALSE(after.host_use(2, 0).out_of_use.has_value());
}

}  // namespace
}  // namespace th::reserve
