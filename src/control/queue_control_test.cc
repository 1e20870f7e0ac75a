// Accounts, preemption, reservations and sizes over the whole control plane, with restarts in the middle.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "control/test_world.h"
#include "control/views.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;
using ledger::JobState;
using ledger::SliceState;
using ::testing::HasSubstr;

constexpr std::string_view kPolicy = R"(
accounts:
  - {name: lab, max_gpus: 8}
  - {name: vision, parent: lab, max_gpus: 4, borrow: true}
  - {name: speech, parent: lab, max_gpus: 4, borrow: true}
  - {name: course, max_gpus: 2, budget: "0.30", budget_period: 1d}
qos:
  - {name: urgent, priority: 1000, preempts: [normal]}
  - {name: normal, priority: 500, grace: 10s}
partitions:
  - {name: day, priority: 100, series: LOCAL, default_time: 30m, max_time: 2h}
)";

/// Four hosts of two GPUs.
class QueueControlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "queue-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    w.emplace(dir_);
    w->policy = reserve::parse_policy(kPolicy, "policy.yaml").value();
    w->restart();
  }
  void TearDown() override {
    w.reset();
    fs::remove_all(dir_);
  }

  std::string submit(const std::string& name, int64_t gpus, const std::string& account,
                     const std::string& qos = "", const std::string& reservation = "") {
    request::JobSpec spec;
    spec.name = name, spec.gpus = gpus, spec.command = {"true"}, spec.account = account, spec.qos = qos;
    spec.reservation = reservation, spec.duration_ns = kHour;
    auto id = w->c->jobs.submit(spec, "batch");
    TH_CHECK(id.has_value());
    up();
    return *id;
  }
  void up() { w->up(); }
  Status resize(int64_t gpus) { return w->c->slices.resize("demo", gpus, w->c->jobs.reservations()); }
  Result<std::string> hold(const std::string& name, int64_t gpus, const std::string& account,
                           int64_t duration_ns = kHour) {
    w->c->core.set_caller({account, "ada", "", "", "", false});
    auto held = w->c->slices.hold({name, gpus, "LOCAL", duration_ns, 0, {}}, w->c->jobs.reservations());
    w->c->core.set_caller({});
    return held;
  }

  fs::path dir_;
  std::optional<World> w;
};

TEST_F(QueueControlTest, QuotaAndBudgetHoldForSlices) {
  EXPECT_THAT(hold("s", 4, "course").error().message, HasSubstr("account course, whose quota is 2"));
  EXPECT_THAT(hold("s", 2, "course", 2 * kHour).error().message, HasSubstr("budget is $0.30"));
  ASSERT_TRUE(hold("s", 2, "course"));
  ASSERT_TRUE(w->c->slices.commit("s"));
  up();
  ASSERT_EQ(w->slice("s").state, SliceState::kReady);
  w->pass(30 * kMinute);
  ASSERT_TRUE(w->c->slices.release("s", "by hand"));
  w->settle();
  // Half an hour cost $0.10; with another hour's $0.20 the budget is just enough, with more it is not.
  w->restart();
  EXPECT_FALSE(hold("t", 2, "course", kHour + kMinute));
  EXPECT_TRUE(hold("u", 2, "course", kHour));
}

TEST_F(QueueControlTest, AFirmSliceDoesNotLiveOnWhatOthersLend) {
  EXPECT_THAT(hold("s", 6, "vision").error().message, HasSubstr("ask for a spot slice"));
  EXPECT_TRUE(hold("s", 4, "vision"));
}

TEST_F(QueueControlTest, AFirmSliceDoesNotLiveLaterOnWhatOthersLendEither) {
  w->c->core.set_caller({"vision", "ada", "", "", "", false});
  request::SliceSpec later{"later", 4, "LOCAL", kHour, 0, {}};
  later.start_ns = w->env.unix_ns() + 30 * kMinute;
  ASSERT_TRUE(w->c->slices.hold(later, w->c->jobs.reservations()));
  w->c->core.set_caller({});
  EXPECT_THAT(hold("long", 2, "vision").error().message, HasSubstr("ask for a spot slice"));
  EXPECT_TRUE(hold("short", 4, "vision", 30 * kMinute)) << "gone when the other one starts";
}

TEST_F(QueueControlTest, WhatASliceGrowsByIsPaidInThePeriodInWhichItWasAcquired) {
  w->policy =
      reserve::parse_policy("accounts: [{name: course, budget: \"0.90\", budget_period: 1h}]", "p").value();
  w->restart();
  ASSERT_TRUE(hold("demo", 2, "course", 4 * kHour));  // 0.80 dollars
  ASSERT_TRUE(w->c->slices.commit("demo"));
  up();
  w->pass(2 * kHour);
  up();
  ASSERT_EQ(w->slice("demo").state, SliceState::kReady);
  EXPECT_THAT(resize(4).error().message, HasSubstr("budget")) << "2 GPUs for 2 hours: 0.40 more";
  EXPECT_TRUE(hold("other", 4, "course", 2 * kHour)) << "0.80 of this period's";
}

TEST_F(QueueControlTest, APreemptedJobComesBackWithoutLosingATry) {
  const std::string low = submit("low", 8, "lab");
  ASSERT_EQ(w->job(low).state, JobState::kRunning);
  w->pass(kMinute);
  const std::string high = submit("high", 2, "lab", "urgent");
  EXPECT_EQ(w->job(low).preemptions, 1);
  EXPECT_FALSE(w->job(low).attempt_open);
  EXPECT_EQ(w->job(low).retries_used, 0);
  EXPECT_EQ(w->job(high).attempt, 0) << "not before the ranks of low are gone";
  w->restart();
  w->report(node::TaskState::kExited, 0);
  up();
  EXPECT_EQ(w->job(high).state, JobState::kRunning);
  EXPECT_NE(w->job(low).state, JobState::kSucceeded) << "it was told to end";
  EXPECT_EQ(w->job(low).attempt, 1);
  w->report(node::TaskState::kExited, 0);
  up(), up();
  EXPECT_EQ(w->job(high).state, JobState::kSucceeded);
  EXPECT_EQ(w->job(low).attempt, 2);
  EXPECT_EQ(w->job(low).state, JobState::kRunning);
}

TEST_F(QueueControlTest, AGpuIsNotFreeBecauseAnEndedAttemptIsToldOfThereAfterARestart) {
  w->ready_slice("demo", 2);
  request::JobSpec spec;
  spec.slice = "demo", spec.command = {"true"}, spec.name = "low", spec.gpus = 1;
  const std::string low = w->c->jobs.submit(spec, "batch").value();
  up();
  w->pass(kMinute);
  spec.name = "high", spec.gpus = 2, spec.qos = "urgent";
  const std::string high = w->c->jobs.submit(spec, "batch").value();
  up();
  w->report_gone(low);
  up();
  ASSERT_EQ(w->job(high).state, JobState::kRunning);
  ASSERT_FALSE(w->job(low).attempt_open);
  w->restart();  // the ledger does not say that the ranks of low are gone
  spec.name = "third", spec.gpus = 1, spec.qos = "";
  const std::string third = w->c->jobs.submit(spec, "batch").value();
  w->settle();
  EXPECT_EQ(w->job(third).attempt, 0) << "high has both GPUs";
}

TEST_F(QueueControlTest, TheOwnerTakesBackWhatTheSiblingBorrowed) {
  const std::string a = submit("a", 4, "vision"), b = submit("b", 4, "vision");
  ASSERT_EQ(w->job(b).state, JobState::kRunning) << "borrowed";
  w->pass(kMinute);
  const std::string mine = submit("mine", 4, "speech");
  EXPECT_EQ(w->job(a).preemptions + w->job(b).preemptions, 1);
  const std::string& gone = w->job(a).preemptions ? a : b;
  for (int i = 0; i < 3; ++i) up();
  EXPECT_EQ(w->job(mine).state, JobState::kRunning);
  EXPECT_EQ(w->c->jobs.waiting(gone)->code, "quota");
}

/// From now, for two hours.
ledger::ReservationCreated reserved(int64_t now_ns, std::vector<std::string> hosts) {
  ledger::ReservationCreated made;
  made.reservation = "class", made.start_ns = now_ns, made.end_ns = now_ns + 2 * kHour;
  made.hosts = std::move(hosts), made.accounts = {"course"};
  return made;
}

TEST_F(QueueControlTest, AReservationKeepsOthersOutAndLetsItsOwnIn) {
  w->c->core.stage(reserved(w->env.now_ns, {"l0r0h0", "l0r0h1", "l1r0h0"}));
  const std::string out = submit("out", 4, "lab"), in = submit("in", 2, "course", "", "class");
  EXPECT_EQ(w->c->jobs.waiting(out)->code, "reservation");
  EXPECT_EQ(w->job(in).state, JobState::kRunning);
  w->restart();
  up();
  EXPECT_EQ(w->job(out).attempt, 0) << "also after a restart";
  w->c->core.stage(ledger::ReservationEnded{"class", ""});
  up();
  EXPECT_EQ(w->job(out).state, JobState::kRunning);
}

TEST_F(QueueControlTest, AJobWhoseReservationIsNoMoreRunsNowhereElse) {
  w->c->core.stage(reserved(w->env.now_ns + kHour, {"l0r0h0"}));
  const std::string id = submit("in", 2, "course", "", "class");
  EXPECT_EQ(w->job(id).attempt, 0);
  w->c->core.stage(ledger::ReservationEnded{"class", ""});
  up();
  EXPECT_EQ(w->job(id).attempt, 0);
  EXPECT_EQ(w->c->jobs.waiting(id)->code, "reservation");
}

TEST_F(QueueControlTest, AReservationKeepsItsHostsBeforeAndAfterWhatRunsInIt) {
  w->c->core.stage(reserved(w->env.now_ns, {"l0r0h0", "l0r0h1", "l1r0h0", "l1r0h1"}));
  const std::string in = submit("in", 2, "course", "", "class");
  ASSERT_EQ(w->job(in).state, JobState::kRunning);
  request::SliceSpec later{"later", 2, "LOCAL", kMinute, w->env.now_ns + 90 * kMinute, {}};
  for (int i = 0; i < 2; ++i, w->restart())
    EXPECT_FALSE(w->c->slices.hold(later, w->c->jobs.reservations())) << "when the job is over";
  later.start_ns = w->env.now_ns + 2 * kHour + kMinute;
  EXPECT_TRUE(w->c->slices.hold(later, w->c->jobs.reservations()));
}

TEST_F(QueueControlTest, AReservationStaysWhenWhatRunsInItGetsAnotherHost) {
  w->c->core.stage(reserved(w->env.now_ns, {"l0r0h0", "l0r0h1", "l1r0h0"}));
  const std::string in = submit("in", 2, "course", "", "class");
  ASSERT_EQ(w->job(in).state, JobState::kRunning);
  const std::string host = w->slice(in).terms.hosts[0].host;
  w->c->core.stage(ledger::SliceHostReplaced{w->job(in).slice, host, {"l1r0h1", "l1r0", "l1", 2}});
  w->settle();
  const std::string out = submit("out", 2, "lab");
  EXPECT_EQ(w->job(out).attempt, 0);
  EXPECT_EQ(w->c->jobs.waiting(out)->code, "reservation");
}

TEST_F(QueueControlTest, ASliceGrowsWhenAllOfItsNewNodesAreReadyAndAfterARestart) {
  w->ready_slice("demo", 2);
  ASSERT_TRUE(resize(8));
  EXPECT_FALSE(resize(4)) << "one at a time";
  ASSERT_TRUE(w->step());
  w->restart();
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 2);
  EXPECT_EQ(w->provider.vms.size(), 4u);
  w->validate_nodes();
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 8);
  EXPECT_EQ(w->slice("demo").terms.hosts.size(), 4u);
  EXPECT_EQ(w->job(w->submit("demo", 8)).attempt, 1);
}

TEST_F(QueueControlTest, AGrowthThatFailsHalfWayLeavesTheSizeAndNoVm) {
  w->ready_slice("demo", 2);
  ASSERT_TRUE(resize(6));
  w->settle();
  ASSERT_EQ(w->provider.vms.size(), 3u);
  w->c->core.stage(ledger::NodeValidated{"demo-1", "b", "127.0.0.1"});
  w->pass(61 * kSecond);  // demo-2 never dials in
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 2);
  EXPECT_EQ(w->provider.vms.size(), 1u);
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("did not come up in time"));
  w->provider.refuse = "no capacity";
  ASSERT_TRUE(resize(4));
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 2);
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("no capacity"));
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
}

TEST_F(QueueControlTest, ASliceGivesBackHostsOnWhichNothingRuns) {
  w->ready_slice("demo", 8);
  const std::string job = w->submit("demo", 2);
  EXPECT_THAT(resize(0).error().message, HasSubstr("want 1 to"));
  ASSERT_TRUE(resize(2));
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 2);
  EXPECT_EQ(w->provider.vms.size(), 1u);
  EXPECT_TRUE(w->job(job).attempt_open) << "what runs goes on";
  EXPECT_TRUE(hold("other", 6, "lab"));
  const std::string full = w->submit("demo", 2);
  EXPECT_EQ(w->job(full).attempt, 0);
}

TEST_F(QueueControlTest, ShrinkingUnderARunningGangIsRefusedWithItsName) {
  w->ready_slice("demo", 4);
  const std::string job = w->submit("demo", 4);
  EXPECT_THAT(resize(2).error().message, HasSubstr(job));
  EXPECT_EQ(w->slice("demo").terms.gpus, 4);
}

TEST_F(QueueControlTest, AJobThatCanRescaleGoesOnInASmallerSlice) {
  w->ready_slice("demo", 8);
  request::JobSpec spec;
  spec.name = "elastic", spec.gpus = 8, spec.command = {"true"}, spec.slice = "demo";
  spec.can_rescale = true, spec.min_gpus = 4;
  const std::string job = w->c->jobs.submit(spec, "batch").value();
  up();
  ASSERT_EQ(w->job(job).ranks.size(), 8u);
  EXPECT_THAT(resize(2).error().message, HasSubstr(job)) << "it wants four at least";
  ASSERT_TRUE(resize(4));
  w->settle();
  EXPECT_FALSE(w->job(job).attempt_open);
  EXPECT_EQ(w->slice("demo").terms.gpus, 8) << "not before its ranks are gone";
  w->restart();
  w->settle();
  EXPECT_EQ(w->slice("demo").terms.gpus, 8) << "also after a restart";
  for (int i = 0; i < 3; ++i) up();
  EXPECT_EQ(w->slice("demo").terms.gpus, 4);
  EXPECT_EQ(w->provider.vms.size(), 2u);
  EXPECT_EQ(w->job(job).attempt, 2);
  EXPECT_EQ(w->job(job).ranks.size(), 4u);
  EXPECT_EQ(w->job(job).state, JobState::kRunning);
  EXPECT_EQ(w->job(job).retries_used, 0);
}

TEST_F(QueueControlTest, WhatRescalesTakesWhatTheOthersLeave) {
  w->ready_slice("demo", 8);
  const std::string firm = w->submit("demo", 2);
  up();
  request::JobSpec spec;
  spec.name = "elastic", spec.gpus = 6, spec.command = {"true"}, spec.slice = "demo";
  spec.can_rescale = true, spec.min_gpus = 2;
  const std::string job = w->c->jobs.submit(spec, "batch").value();
  up();
  ASSERT_EQ(w->job(job).ranks.size(), 6u);
  ASSERT_TRUE(resize(4));
  w->settle();
  for (int i = 0; i < 3; ++i) up();
  EXPECT_EQ(w->slice("demo").terms.gpus, 4);
  EXPECT_EQ(w->job(job).ranks.size(), 2u);
  EXPECT_EQ(w->job(job).attempt, 2);
  EXPECT_EQ(w->job(firm).attempt, 1) << "what runs goes on";
  EXPECT_TRUE(w->job(firm).attempt_open);
}

TEST_F(QueueControlTest, AnEstimateKeepsToTheQuotaOfTheAccount) {
  request::JobSpec spec;
  spec.name = "j", spec.gpus = 2, spec.command = {"true"}, spec.account = "course", spec.duration_ns = kHour;
  auto now = w->c->jobs.estimate(spec);
  ASSERT_TRUE(now && now->plan);
  EXPECT_EQ(now->waiting.code, "");
  const std::string running = submit("first", 2, "course");
  ASSERT_EQ(w->job(running).state, JobState::kRunning);
  auto later = w->c->jobs.estimate(spec);
  ASSERT_TRUE(later);
  EXPECT_EQ(later->waiting.code, "quota") << later->waiting.text;
  EXPECT_TRUE(!later->plan || later->plan->start_ns >= w->env.now_ns + kHour);
  spec.account = "lab";
  EXPECT_EQ(w->c->jobs.estimate(spec)->waiting.code, "") << "six GPUs are free";
}

TEST_F(QueueControlTest, OnlyTheOperatorPutsAJobBeforeOthers) {
  request::JobSpec spec;
  spec.name = "j", spec.gpus = 2, spec.command = {"true"}, spec.priority = 1;
  w->c->core.set_caller({"lab", "ada", "", "", "", false});
  EXPECT_EQ(w->c->jobs.submit(spec, "batch").error().code, Code::kPermissionDenied);
  EXPECT_THAT(w->c->jobs.submit(spec, "batch").error().message, HasSubstr("'priority'"));
  spec.priority = 0, spec.nice = -1;
  EXPECT_THAT(w->c->jobs.submit(spec, "batch").error().message, HasSubstr("'nice'"));
  spec.nice = 1;
  EXPECT_TRUE(w->c->jobs.submit(spec, "batch"));
  w->c->core.set_caller({});
  spec.nice = 0, spec.priority = 1;
  EXPECT_TRUE(w->c->jobs.submit(spec, "batch"));
}

TEST_F(QueueControlTest, APartitionOfThePolicyGivesTheJobItsLimits) {
  request::JobSpec spec;
  spec.name = "j", spec.gpus = 2, spec.command = {"true"}, spec.slice = "day";
  const std::string job = w->c->jobs.submit(spec, "batch").value();
  up();
  EXPECT_EQ(w->job(job).state, JobState::kRunning);
  EXPECT_EQ(w->job(job).owner.partition, "day");
  EXPECT_EQ(*w->c->jobs.spec_of(w->job(job)).duration_ns, 30 * kMinute);
  spec.duration_ns = 2 * kHour;
  const std::string most = w->c->jobs.submit(spec, "batch").value();
  up();
  EXPECT_EQ(w->job(most).state, JobState::kRunning);
  spec.duration_ns = 2 * kHour + 1;
  const std::string over = w->c->jobs.submit(spec, "batch").value();
  up();
  EXPECT_EQ(w->job(over).attempt, 0);
  EXPECT_EQ(w->c->jobs.waiting(over)->code, "limit");
  spec.slice = "night";
  EXPECT_EQ(w->c->jobs.submit(spec, "batch").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace th::control
