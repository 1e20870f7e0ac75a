// The rules of docs/queue.md, one by one; expected numbers are worked out in the comments.

#include "reserve/queue.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reserve/test_fleet.h"

namespace th::reserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Pending ask(const std::string& name, int64_t gpus, const std::string& account = "default",
            const std::string& qos = "normal") {
  Pending p;
  p.request.name = name, p.request.gpus = gpus, p.request.series = "LOCAL", p.request.duration_ns = kHour;
  p.who.account = account, p.who.qos = qos;
  return p;
}

struct Queue {
  explicit Queue(int hosts, std::string_view yaml = "{}")
      : snapshot(one_leaf_fleet(hosts)), policy(parse_policy(yaml, "policy.yaml").value()) {}

  void run(const std::string& id, int64_t gpus, const std::string& account = "default",
           const std::string& qos = "normal") {
    Running r;
    auto plan = decide(snapshot, ask(id, gpus).request, {}, now).value();
    r.claim = claim_of(plan, id);
    r.who.account = account, r.who.qos = qos, r.preemptible = true;
    snapshot = snapshot.with_claim(r.claim).value();
    uses.push_back({id, account, qos, gpus, r.claim.start_ns, r.claim.end_ns});
    running.push_back(r);
  }
  QueuePlan look() const {
    return plan_queue({snapshot, policy, standing, uses, pending, running, reservations, now, {}, "*"});
  }
  std::vector<std::string> started() const {
    std::vector<std::string> out;
    for (const Decision& d : look().decisions) {
      if (d.start) out.push_back(pending[d.index].request.name);
    }
    return out;
  }

  Snapshot snapshot;
  QueuePolicy policy;
  Standing standing;
  std::vector<Use> uses;
  std::vector<Pending> pending;
  std::vector<Running> running;
  std::vector<Reservation> reservations;
  int64_t now = 0;
};

constexpr std::string_view kLab = R"(
accounts:
  - {name: lab, max_gpus: 8}
  - {name: vision, parent: lab, max_gpus: 4, borrow: true}
  - {name: speech, parent: lab, max_gpus: 4, borrow: true}
qos:
  - {name: urgent, priority: 1000, preempts: [normal]}
  - {name: normal, priority: 500, grace: 30s}
)";

TEST(Policy, NamesWhatIsWrongAndWhere) {
  auto error = [](std::string_view yaml) { return parse_policy(yaml, "policy.yaml").error().message; };
  EXPECT_THAT(error("accounts:\n  - {name: a, parent: b}"), HasSubstr("there is no account 'b'"));
  EXPECT_THAT(error("accounts:\n  - {name: a, parent: b}\n  - {name: b, parent: a}"),
              HasSubstr("leads back to itself"));
  EXPECT_THAT(error("accounts:\n  - {name: a, max_gpu: 4}"), HasSubstr("did you mean 'max_gpus'"));
  EXPECT_THAT(error("accounts:\n  - {name: a}\n  - {name: a}"), HasSubstr("policy.yaml:3"));
  EXPECT_THAT(error("accounts:\n  - {name: a, borrow: true}"), HasSubstr("needs a max_gpus"));
  EXPECT_THAT(error("qos:\n  - {name: high, preempts: [nromal]}"), HasSubstr("did you mean 'normal'"));
  EXPECT_THAT(error("backfill: eager"), HasSubstr("conservative or easy"));
  EXPECT_THAT(error("weights: {age: 0}"), HasSubstr("age"));
  EXPECT_THAT(error("partitions:\n  - {name: p, series: ND_H100}"), HasSubstr("series"));
  EXPECT_EQ(parse_policy(kLab, "policy.yaml")->find_qos("normal")->grace_ns, 30 * kSecond);
}

TEST(FairShare, RanksWholeSubtreesAsFairTreeDoes) {
  // Level fair share is shares/usage as parts of the siblings'. a: 1/2 of the shares, 3/4 of the usage →
  // 0.67; b: 1/2 over 1/4 → 2. So b and all below it go before a, whatever a's children have: b1, b2 (0.5/0.9
  // after 0.5/0.1), then a2 (nothing used) before a1.
  auto policy = parse_policy(R"(
accounts:
  - {name: a}
  - {name: b}
  - {name: a1, parent: a}
  - {name: a2, parent: a}
  - {name: b1, parent: b}
  - {name: b2, parent: b}
  - {name: default, parent: a}
)",
                             "p")
                    .value();
  Standing standing;
  standing.usage_gpu_s.resize(policy.accounts.size());
  auto set = [&](const char* name, double usage) {
    standing.usage_gpu_s[static_cast<size_t>(policy.find_account(name) - policy.accounts.data())] = usage;
  };
  set("a1", 75), set("b1", 22.5), set("b2", 2.5);
  const Accounts accounts(policy, standing, {});
  // 7 accounts; b's own usage counts as a leaf as well and, unused, is owed most: 7/7, then b2 6/7, b1 5/7.
  EXPECT_EQ(accounts.fair_share_ppm("b2"), 857'142);
  EXPECT_EQ(accounts.fair_share_ppm("b1"), 714'285);
  // a2, default and a's own are equal: one rank, the fourth from below; a1 is last.
  EXPECT_EQ(accounts.fair_share_ppm("a2"), 571'428);
  EXPECT_EQ(accounts.fair_share_ppm("default"), 571'428);
  EXPECT_EQ(accounts.fair_share_ppm("a1"), 142'857);
}

TEST(Queue, PriorityIsTheFormula) {
  Queue q(4,
          "accounts: [{name: default, shares: 2}]\npartitions: [{name: day, priority: 100}]\nweights: {size: "
          "800}");
  Pending p = ask("j", 2);
  p.who.partition = "day", p.who.nice = 7;
  q.now = 12 * kHour;
  const Accounts accounts(q.policy, {}, {});
  // age 1000 · ½ day + fair share 1000 · 1 (nobody used anything) + qos 10000 · 0.5 + partition 1000 · 0.1 +
  // size 800 · 2/8 − 7 = 500 + 1000 + 5000 + 100 + 200 − 7
  EXPECT_EQ(priority_of(p.who, 2, q.policy, accounts, 8, q.now), int64_t{6793} * 1'000'000);
}

TEST(Queue, QuotaIsRefusedWithWhatWouldDo) {
  Queue q(8, "accounts: [{name: lab, max_gpus: 4}]");
  q.run("r", 2, "lab");
  q.pending = {ask("j", 4, "lab")};
  const QueuePlan plan = q.look();
  const Refusal& refusal = plan.decisions[0].refusal;
  EXPECT_EQ(refusal.reason, Reason::kQuota);
  EXPECT_THAT(refusal.text, HasSubstr("account lab, whose quota is 4"));
  ASSERT_TRUE(refusal.later);
  EXPECT_EQ(refusal.later->start_ns, kHour) << "when r has ended";
  ASSERT_EQ(refusal.changes.size(), 2u);
  EXPECT_EQ(refusal.changes[0].gpus, 2);
  EXPECT_EQ(refusal.changes[1].raise_quota_gpus, 6);
}

TEST(Queue, BudgetOfThisPeriodWaitsForTheNext) {
  // 2 GPUs for 1 h of LOCAL at $0.10 are $0.20; $0.15 of $0.30 is committed.
  Queue q(4, "accounts: [{name: lab, budget: \"0.30\", budget_period: 1d}]");
  q.standing.committed_microusd = {150'000, 0};
  q.now = 3 * kHour;
  q.pending = {ask("j", 2, "lab")};
  const QueuePlan plan = q.look();
  EXPECT_EQ(plan.decisions[0].refusal.reason, Reason::kBudget);
  ASSERT_TRUE(plan.decisions[0].refusal.later);
  EXPECT_EQ(plan.decisions[0].refusal.later->start_ns, kDay);
  q.standing.committed_microusd = {100'000, 0};
  EXPECT_THAT(q.started(), ElementsAre("j"));
}

TEST(Queue, WhatASiblingLeavesIdleIsLentAndTakenBack) {
  Queue q(4, kLab);
  q.run("v1", 4, "vision"), q.run("v2", 2, "vision");
  q.pending = {ask("s1", 2, "speech")};
  EXPECT_THAT(q.started(), ElementsAre("s1"));
  q.run("v3", 2, "vision");  // now vision has all eight
  q.now = kMinute;
  q.pending = {ask("s2", 4, "speech"), ask("v4", 2, "vision")};
  const QueuePlan plan = q.look();
  // s2 is within speech's quota, so what vision borrowed goes: v2 and v3, and v1, which is vision's own,
  // stays.
  EXPECT_THAT(plan.decisions[0].preempts, ::testing::UnorderedElementsAre("v2", "v3"));
  EXPECT_EQ(plan.decisions[0].refusal.later->start_ns, 90 * kSecond) << "the grace of normal";
  EXPECT_FALSE(plan.decisions[1].start);
  EXPECT_EQ(plan.preemptions.size(), 2u);
}

TEST(Queue, PreemptsByQosTheLeastWorkLostFirst) {
  Queue q(4, kLab);
  q.run("old", 2), q.run("saved", 2), q.run("other", 4);
  q.now = 30 * kMinute;
  q.running[1].saved_ns = 29 * kMinute;
  q.pending = {ask("now", 2, "default", "urgent")};
  EXPECT_THAT(q.look().decisions[0].preempts, ElementsAre("saved"));
  q.running[1].ends_ns = q.now + kSecond, q.running[1].makes_room_for = "now";
  const QueuePlan again = q.look();
  EXPECT_THAT(again.preemptions, IsEmpty()) << "it is on its way";
  EXPECT_EQ(again.decisions[0].refusal.reason, Reason::kPreempting);
  q.pending = {ask("later", 2)};
  EXPECT_THAT(q.look().preemptions, IsEmpty()) << "normal preempts nothing here";
}

TEST(Queue, WhatIsGivenBackBeforeItBeganKeepsItsWindowUntilItIs) {
  Queue q(1);
  q.run("later", 2);
  q.snapshot = q.snapshot.without_claim(q.running[0].claim);
  q.running[0].claim.start_ns += kMinute, q.running[0].claim.end_ns += kMinute;
  q.snapshot = q.snapshot.with_claim(q.running[0].claim).value();
  q.running[0].ends_ns = q.now + kSecond;
  q.pending = {ask("now", 2)};
  EXPECT_THAT(q.started(), IsEmpty()) << "two would have the host from 1m on";
  q.pending[0].request.duration_ns = kMinute;
  EXPECT_THAT(q.started(), ElementsAre("now"));
}

TEST(Queue, AReservationIsForThoseItNames) {
  Queue q(2);
  Reservation r;
  r.name = "class", r.accounts = {"default"};
  r.claim = {"reservation-class", 0, 2 * kHour, {{0, 3}}};
  q.snapshot = q.snapshot.with_claim(r.claim).value();
  q.reservations = {r};
  Pending inside = ask("inside", 2);
  inside.reservation = "class";
  q.pending = {ask("whole", 4), inside};
  const QueuePlan plan = q.look();
  EXPECT_EQ(plan.decisions[0].refusal.reason, Reason::kReservation);
  EXPECT_EQ(plan.decisions[0].refusal.later->start_ns, 2 * kHour);
  ASSERT_TRUE(plan.decisions[1].start);
  EXPECT_EQ(plan.decisions[1].start->hosts[0].host, 0);
  q.reservations[0].accounts.clear();  // maintenance
  EXPECT_EQ(q.look().decisions[1].refusal.reason, Reason::kReservation);
}

/// Two in the reservation take two of its three hosts; the third is still not for the one without.
TEST(Queue, WhatTwoLeaveOfAReservationIsStillReserved) {
  Queue q(3);
  Reservation r;
  r.name = "class", r.accounts = {"default"};
  r.claim = {"reservation-class", 0, 2 * kHour, {{0, 3}, {1, 3}, {2, 3}}};
  q.snapshot = q.snapshot.with_claim(r.claim).value();
  q.reservations = {r};
  q.pending = {ask("a", 2), ask("b", 2), ask("out", 2)};
  q.pending[0].reservation = q.pending[1].reservation = "class";
  EXPECT_THAT(q.started(), ElementsAre("a", "b"));
}

TEST(Queue, TheRestOfAReservationIsEachHostsTimeAroundWhatIsInside) {
  Reservation r;
  r.claim = {"r", 10, 100, {{0, 3}, {1, 3}, {2, 3}}};
  r.inside = {{"a", 0, 40, {{1, 3}}}, {"b", 60, 70, {{1, 3}, {5, 3}}}, {"c", 5, 200, {{2, 3}}}};
  std::vector<std::string> got;
  for (const Claim& piece : r.rest())
    got.push_back(fmt::format("{} {}-{} {}", piece.id, piece.start_ns, piece.end_ns, piece.hosts[0].host));
  EXPECT_THAT(got, ElementsAre("r 10-100 0", "r 40-60 1", "r 70-100 1"));
}

/// The victim's host is the reservation's again, and of no use to the urgent one; its quota would be.
TEST(Queue, NobodyIsStoppedForAHostThatItsReservationTakesBack) {
  Queue q(1, "qos: [{name: urgent, priority: 1000, preempts: [normal]}]");
  q.run("a", 2);
  q.pending = {ask("b", 2, "default", "urgent")};
  q.running[0].reservation = "class";
  EXPECT_THAT(q.look().preemptions, IsEmpty());
  q.running[0].reservation.clear();
  EXPECT_EQ(q.look().preemptions.size(), 1u);
}

TEST(Queue, FreeButKeptForTheFirstIsToldAsPriority) {
  Queue q(2);
  q.run("r", 2);
  q.pending = {ask("big", 4), ask("long", 2)};
  q.pending[1].request.duration_ns = 2 * kHour;
  const QueuePlan plan = q.look();
  EXPECT_EQ(plan.decisions[0].refusal.reason, Reason::kBusy);
  EXPECT_EQ(plan.decisions[1].refusal.reason, Reason::kPriority);
  EXPECT_EQ(plan.decisions[1].refusal.later->start_ns, 2 * kHour);
}

TEST(Queue, TakesFewerWhereItMayAndThatStartsIt) {
  Queue q(4);
  q.run("r", 2);
  q.pending = {ask("j", 8)};
  q.pending[0].min_gpus = 2;
  const QueuePlan plan = q.look();
  ASSERT_TRUE(plan.decisions[0].start);
  EXPECT_EQ(plan.decisions[0].gpus, 6);
}

TEST(Queue, SpotIsCheaperAndMakesRoom) {
  Queue q(1);
  q.pending = {ask("s", 2, "default", "spot")};
  q.pending[0].spot = true;
  const QueuePlan plan = q.look();
  ASSERT_TRUE(plan.decisions[0].start);
  EXPECT_EQ(plan.decisions[0].start->price_microusd, 80'000) << "40 % of 2 GPU-hours at $0.10";
  q.run("s", 2, "default", "spot");
  q.pending = {ask("n", 2)};
  EXPECT_THAT(q.look().decisions[0].preempts, ElementsAre("s"));
}

}  // namespace
}  // namespace th::reserve
