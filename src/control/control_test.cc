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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ControlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "control-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    w.emplace(dir_);
  }
  void TearDown() override {
    w.reset();
    fs::remove_all(dir_);
  }
  fs::path dir_;
  std::optional<World> w;
};

TEST_F(ControlTest, AHoldThatIsNotCommittedExpires) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  w->pass(59 * kSecond);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kHeld);
  w->pass(2 * kSecond);
  EXPECT_FALSE(w->c->slices.commit("demo")) << "too late, also before the next step";
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kExpired);
  EXPECT_THAT(w->provider.creates, IsEmpty());
}

TEST_F(ControlTest, HostsOfALeaseThatJustRanOutAreNotGivenToOthersWhileItsVmsStand) {
  w->ready_slice("demo", 8);
  w->pass(kHour);
  EXPECT_FALSE(w->c->slices.hold({"next", 8, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()))
      << "no step of the controller has seen yet that the lease is over";
  request::JobSpec job;
  job.name = "train", job.gpus = 8, job.command = {"true"};
  ASSERT_TRUE(w->c->jobs.submit(job, "batch"));
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->job("job-1").slice, "") << "nor does a job get them in the step that sees it";
}

TEST_F(ControlTest, IfTheVmsCannotBeMadeNothingIsLeftAndNothingIsPaid) {
  w->provider.refuse = "no capacity";
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kFailed);
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("no capacity"));
  w->pass(kHour);
  EXPECT_EQ(w->slice("demo").cost_microusd_at(w->env.now_ns), 0);
  EXPECT_THAT(w->c->core.active_slices(), IsEmpty()) << "its hosts are free again";
}

TEST_F(ControlTest, ANodeThatNeverDialsInIsReplacedByOneOnAnotherHost) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  w->settle();
  const std::string bad = w->c->core.state().vms.at("demo-1").host;
  w->c->core.stage(ledger::NodeValidated{"demo-0", "b", "127.0.0.1"});
  w->pass(61 * kSecond);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kStarting);
  EXPECT_EQ(w->provider.vms.count("demo-1"), 0u);
  ASSERT_EQ(w->provider.vms.count("demo-2"), 1u);
  EXPECT_NE(w->provider.vms.at("demo-2").host, bad);
  EXPECT_THAT(w->provider.creates, ElementsAre("slice-1", "demo-2")) << "the others were not made again";
  w->restart();
  w->validate_nodes();
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
  EXPECT_EQ(w->slice("demo").metered_gpus, 4);
}

TEST_F(ControlTest, ASliceWhoseNodesNeverComeUpFailsInTheEndWithTheReason) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  for (int i = 0; i < 8; ++i) w->settle(), w->pass(61 * kSecond);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kFailed);
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("did not come up within 1m"));
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("were replaced before it"));
  EXPECT_THAT(w->provider.vms, IsEmpty());
}

TEST_F(ControlTest, WhereNoOtherHostIsLeftASliceWithADeadNodeFails) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 8, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  w->settle();
  for (int i = 0; i < 3; ++i)
    w->c->core.stage(ledger::NodeValidated{"demo-" + std::to_string(i), "b", "127.0.0.1"});
  w->pass(61 * kSecond);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kFailed);
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("no host can take the place"));
  EXPECT_THAT(w->provider.vms, IsEmpty());
}

TEST_F(ControlTest, AReleaseDuringCreationDeletesWhatCreationMakes) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  ASSERT_TRUE(w->step());
  ASSERT_TRUE(w->c->slices.release("demo", "by hand"));
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->slice("demo").state, SliceState::kReleasing) << "create() has not come back";
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReleased);
  EXPECT_THAT(w->provider.vms, IsEmpty());
}

TEST_F(ControlTest, HalfCreatedVmsAreCompletedAfterARestartWithTheSameToken) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  ASSERT_TRUE(w->step());
  ASSERT_FALSE(w->work.empty());
  for (Work& work : w->work) work();  // the provider did it, but nobody heard of it
  w->restart();
  w->settle();
  w->validate_nodes();
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
  EXPECT_THAT(w->provider.creates, ElementsAre("slice-1", "slice-1"));
  EXPECT_EQ(w->provider.vms.size(), 2u);
}

TEST_F(ControlTest, AVmThatBelongsToNobodyIsDeleted) {
  w->provider.vms["stray-0"] = {"stray-0", "l0r0h0", "slice-9", cloud::VmPhase::kRunning, "", ""};
  w->settle();
  w->pass(2 * kSecond);
  w->settle();
  EXPECT_THAT(w->provider.vms, IsEmpty());
}

TEST_F(ControlTest, ASliceEndsAtItsTime) {
  w->ready_slice("demo", 4);
  w->pass(kHour);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReleased);
  EXPECT_THAT(w->provider.vms, IsEmpty());
  // One GPU-hour of LOCAL is $0.10 in the catalogue; ready came 0 s after the hold on this clock.
  EXPECT_EQ(w->slice("demo").cost_microusd_at(w->env.now_ns), 400'000);
}

TEST_F(ControlTest, JobsOfASliceRunInOrder) {
  w->ready_slice("demo", 4);
  const std::string first = w->submit("demo", 4), second = w->submit("demo", 2);
  EXPECT_EQ(w->job(first).attempt, 1);
  EXPECT_EQ(w->job(second).attempt, 0);
  ASSERT_NE(w->c->jobs.waiting(second), nullptr);
  EXPECT_EQ(w->c->jobs.waiting(second)->code, "busy");
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(first).state, JobState::kRunning);
  w->report(node::TaskState::kExited, 0);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(first).state, JobState::kSucceeded);
  EXPECT_EQ(w->job(second).attempt, 1);
}

TEST_F(ControlTest, ARankThatIsKilledRestartsTheGangUntilItsRetriesAreUsed) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4, 1);
  w->report(node::TaskState::kRunning);
  w->c->core.stage(ledger::CheckpointSaved{id, 1, 50});
  node::MetricsLine line;
  line.id.job = id, line.line_no = 1, line.line = R"({"event":"progress","step":62})";
  ASSERT_TRUE(w->c->output.add_metrics(line));
  w->rank_killed(id, 2, 9);
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->job(id).state, JobState::kRestarting);
  EXPECT_THAT(w->job(id).reason, HasSubstr("rank 2 on node demo-1 was killed by signal 9 (SIGKILL)"));
  EXPECT_THAT(w->job(id).reason, HasSubstr("12 steps lost"));
  EXPECT_EQ(w->job(id).lost_steps, 12);
  EXPECT_EQ(w->job(id).attempt, 1) << "the rest of the gang has to be gone first";
  EXPECT_THAT(w->desired("demo-0"), IsEmpty());
  w->report(node::TaskState::kRunning);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).attempt, 2);
  EXPECT_EQ(w->job(id).state, JobState::kRunning);
  w->rank_killed(id, 0, 11);
  ASSERT_TRUE(w->step());
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).state, JobState::kFailed);
  EXPECT_THAT(w->job(id).reason, HasSubstr("no retries left"));
}

TEST_F(ControlTest, ALostNodeIsReplacedAndDoesNotCountAsARetry) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4, 0);
  w->report(node::TaskState::kRunning);
  w->pass(2 * kSecond);
  w->provider.vms["demo-1"].phase = cloud::VmPhase::kDead;
  w->provider.vms["demo-1"].detail = "process 4711 is gone";
  w->settle();
  EXPECT_THAT(w->job(id).reason,
              HasSubstr("rank 2 is lost: node demo-1 on host l0r0h1 is down: process 4711 is gone"));
  EXPECT_EQ(slice_state(*w->c, w->slice("demo")), "degraded");
  EXPECT_EQ(w->slice("demo").terms.hosts[1].host, "l1r0h0") << "not the host that just lost a node";
  w->validate_nodes();
  w->report(node::TaskState::kRunning);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(slice_state(*w->c, w->slice("demo")), "ready");
  EXPECT_EQ(w->job(id).attempt, 2);
  EXPECT_EQ(w->job(id).retries_used, 0);
  EXPECT_EQ(w->job(id).ranks[2].place.vm, "demo-2");
}

TEST_F(ControlTest, ASliceOfTheWholeFleetTakesItsOwnHostBack) {
  w->ready_slice("demo", 8);
  w->pass(2 * kSecond);
  w->provider.vms["demo-1"].phase = cloud::VmPhase::kDead;
  w->settle();
  EXPECT_EQ(slice_state(*w->c, w->slice("demo")), "degraded");
  EXPECT_FALSE(w->provider.vms.count("demo-1"));
  w->pass(31 * kSecond);  // hosts that lost a node are avoided for 30 s
  w->settle();
  w->validate_nodes();
  w->settle();
  EXPECT_EQ(slice_state(*w->c, w->slice("demo")), "ready");
  EXPECT_EQ(w->slice("demo").terms.hosts[1].host, "l0r0h1");
  EXPECT_TRUE(w->provider.vms.count("demo-4"));
}

TEST_F(ControlTest, AnOverdueSliceKeepsTheHostsThatNobodyHasAfterIt) {
  w->ready_slice("first", 8);
  const int64_t end_ns = w->slice("first").terms.end_ns;
  ASSERT_TRUE(w->c->slices.hold({"second", 2, "LOCAL", kHour, end_ns, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("second"));
  w->pass(end_ns + kSecond - w->env.now_ns);
  ASSERT_TRUE(w->step());
  ASSERT_EQ(w->slice("first").state, SliceState::kReleasing);
  EXPECT_FALSE(w->c->slices.hold({"third", 2, "LOCAL", kMinute, 0, {}}, w->c->jobs.reservations()));
}

TEST_F(ControlTest, AJobKeepsItsGpusInASliceWhoseTimeIsOver) {
  w->ready_slice("demo", 2);
  const std::string first = w->submit("demo", 2), second = w->submit("demo", 2);
  ASSERT_EQ(w->job(first).attempt, 1);
  w->pass(w->slice("demo").terms.end_ns + kMinute - w->env.now_ns);
  w->restart();
  w->settle();
  EXPECT_EQ(w->job(second).attempt, 0);
}

TEST_F(ControlTest, AReservationWaitsForTheVmsOfTheSliceBeforeIt) {
  w->ready_slice("first", 8);
  const int64_t end_ns = w->slice("first").terms.end_ns;
  ASSERT_TRUE(w->c->slices.hold({"second", 8, "LOCAL", kHour, end_ns, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("second"));
  w->settle();
  w->pass(end_ns - 30 * kSecond - w->env.now_ns);
  w->restart();
  w->settle();
  EXPECT_FALSE(w->c->slices.hold({"third", 2, "LOCAL", kMinute, 0, {}}, w->c->jobs.reservations()));
  w->pass(31 * kSecond);
  ASSERT_TRUE(w->step());
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->slice("first").state, SliceState::kReleasing);
  EXPECT_THAT(w->slice("second").vms, IsEmpty()) << "the VMs of the first are still there";
  EXPECT_FALSE(w->c->slices.hold({"third", 2, "LOCAL", kMinute, 0, {}}, w->c->jobs.reservations()));
  w->settle();
  EXPECT_EQ(w->slice("first").state, SliceState::kReleased);
  EXPECT_EQ(w->slice("second").vms.size(), 4u);
}

TEST_F(ControlTest, AReleasedSliceMakesNoVmThatARestartLeftHalfMade) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  ASSERT_TRUE(w->step());
  for (Work& work : w->work) work();  // the provider did it, but nobody heard of it
  ASSERT_TRUE(w->c->slices.release("demo", "by hand"));
  ASSERT_TRUE(w->step());
  w->restart();
  w->settle();
  EXPECT_THAT(w->provider.creates, ElementsAre("slice-1"));
  EXPECT_THAT(w->provider.vms, IsEmpty());
  EXPECT_EQ(w->slice("demo").state, SliceState::kReleased);
}

TEST_F(ControlTest, ASliceThatStartsOutlivesALongAbsenceOfTheController) {
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  w->settle();
  w->pass(5 * kMinute);
  w->restart();
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kStarting);
  w->validate_nodes();
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
}

TEST_F(ControlTest, HardwareThatTheCloudDoesNotMakeIsRefused) {
  auto held = w->c->slices.hold({"demo", 8, "ND_A100_v4", kHour, 0, {}}, w->c->jobs.reservations());
  ASSERT_FALSE(held);
  EXPECT_THAT(held.error().message, HasSubstr("LOCAL only"));
  EXPECT_FALSE(w->c->slices.offer({"demo", 8, "ND_A100_v4", kHour, 0, {}}, w->c->jobs.reservations()));
}

TEST_F(ControlTest, ARunningJobIsFoundRunningAfterARestart) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4);
  w->report(node::TaskState::kRunning);
  const int64_t seq = w->c->core.state().seq;
  w->restart();
  EXPECT_THAT(w->desired("demo-0"), ElementsAre("job-1.1.0", "job-1.1.1")) << "before any node is heard";
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).state, JobState::kRunning);
  EXPECT_EQ(w->job(id).attempt, 1);
  EXPECT_EQ(w->c->core.state().seq, seq) << "nothing happened";
}

TEST_F(ControlTest, AnEndedAttemptIsNotStartedAgainAfterARestart) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4);
  w->report(node::TaskState::kRunning);
  w->rank_killed(id, 2, 9);
  ASSERT_TRUE(w->step());
  w->restart();
  EXPECT_THAT(w->desired("demo-0"), IsEmpty()) << "its ranks are being stopped";
  w->settle();
  EXPECT_EQ(w->job(id).attempt, 1) << "nobody said that they are gone";
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).attempt, 2);
}

TEST_F(ControlTest, AJobWithoutASliceGetsOneAndGivesItBack) {
  const std::string id = w->submit("", 4);
  EXPECT_EQ(w->slice(id).state, SliceState::kStarting);
  w->validate_nodes();
  w->settle();
  w->report(node::TaskState::kRunning);
  w->report(node::TaskState::kExited, 0);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).state, JobState::kSucceeded);
  w->settle();
  EXPECT_EQ(w->slice(id).state, SliceState::kReleased);
  EXPECT_THAT(w->provider.vms, IsEmpty());
}

TEST_F(ControlTest, QueuedJobsKeepTheirPlaceBeforeNewSlices) {
  w->ready_slice("demo", 4);
  const std::string queued = w->submit("", 8);
  EXPECT_EQ(w->job(queued).attempt, 0);
  // Four GPUs are free for the hour that demo lasts, and job-1 has all eight after that.
  EXPECT_FALSE(w->c->slices.hold({"long", 4, "LOCAL", 2 * kHour, 0, {}}, w->c->jobs.reservations()));
  EXPECT_TRUE(w->c->slices.hold({"short", 4, "LOCAL", kHour / 2, 0, {}}, w->c->jobs.reservations()));
}

TEST_F(ControlTest, ReleasingASliceCancelsItsJobs) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4);
  w->report(node::TaskState::kRunning);
  ASSERT_TRUE(w->c->slices.release("demo", "by hand"));
  w->report(node::TaskState::kRunning);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).state, JobState::kCancelled);
  w->settle();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReleased);
}

TEST_F(ControlTest, NothingIsSeenOutsideUntilItIsDurable) {
  w->disk_full = true;
  ASSERT_TRUE(w->c->slices.hold({"demo", 4, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
  ASSERT_TRUE(w->c->slices.commit("demo"));
  bool answered = false;
  w->c->core.after_commit([&] { answered = true; });
  const Status stuck = w->step();
  ASSERT_FALSE(stuck);
  EXPECT_EQ(stuck.error().code, Code::kNoSpace);
  EXPECT_FALSE(answered);
  EXPECT_THAT(w->work, IsEmpty()) << "no VM is asked for";
  w->disk_full = false;
  ASSERT_TRUE(w->step());
  EXPECT_TRUE(answered);
  EXPECT_FALSE(w->work.empty());
}

TEST_F(ControlTest, ClosingStartsNothingOnWhatItFrees) {
  w->ready_slice("demo", 8);
  const std::string pending = w->submit("", 2), queued = w->submit("demo", 2);
  ASSERT_FALSE(w->job(pending).slice == "slice-2");
  const size_t creates = w->provider.creates.size();
  w->c->jobs.close();
  w->c->slices.close();
  ASSERT_TRUE(w->c->slices.release("demo", "the controller is shut down"));
  w->report(node::TaskState::kExited, 143);
  w->report(node::TaskState::kExited, 143);
  w->settle();
  EXPECT_THAT(w->c->core.active_slices(), IsEmpty());
  EXPECT_EQ(w->provider.creates.size(), creates);
  EXPECT_EQ(w->job(pending).state, JobState::kPending) << "left for the next start";
}

TEST_F(ControlTest, CommandsThatWaitTogetherAreOneCommit) {
  w->settle();
  const int before = w->appends;
  int answered = 0;
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(w->c->slices.hold({name, 2, "LOCAL", kHour, 0, {}}, w->c->jobs.reservations()));
    w->c->core.after_commit([&] { ++answered; });
  }
  ASSERT_TRUE(w->step());
  EXPECT_EQ(answered, 3);
  EXPECT_EQ(w->appends - before, 1);
}

TEST_F(ControlTest, TheScrapeShowsWhatThereIs) {
  w->ready_slice("demo", 4);
  const std::string text = prometheus_text(*w->c, true);
  for (const char* line :
       {"\nthunderhead_gpus 8\n", "\nthunderhead_gpus_used 4\n", "\nthunderhead_slices{state=\"ready\"} 1\n",
        "\nthunderhead_nodes{state=\"ready\"} 2\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(ControlTest, AfterAStartATimeLimitWaitsForWhatTheNodesSay) {
  w->ready_slice("demo", 4);
  request::JobSpec spec;
  spec.name = "train", spec.slice = "demo", spec.gpus = 4, spec.duration_ns = kMinute,
  spec.command = {"true"};
  const std::string id = *w->c->jobs.submit(spec, "batch");
  w->settle();
  w->report(node::TaskState::kRunning);
  w->pass(59 * kSecond);
  w->restart();
  w->pass(2 * kSecond);
  w->settle();
  EXPECT_FALSE(w->job(id).cancelling()) << "no node was heard yet";
  w->report(node::TaskState::kExited, 0);
  w->report(node::TaskState::kRunning);
  EXPECT_EQ(w->job(id).state, JobState::kSucceeded);
}

TEST_F(ControlTest, ACheckpointWhoseLineIsStoredIsKnownAfterARestart) {
  w->ready_slice("demo", 4);
  const std::string id = w->submit("demo", 4);
  node::MetricsLine line;
  line.id.job = id, line.line_no = 1, line.line = R"({"event":"checkpoint","step":50})";
  ASSERT_TRUE(w->c->output.add_metrics(line));
  w->restart();
  EXPECT_EQ(w->job(id).checkpoint_step, 50);
}

}  // namespace
}  // namespace th::control
