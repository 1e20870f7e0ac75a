// Which hosts are used and which are left over the whole control plane: hosts that fail too often, power,
// placement groups, few switches for a while, jobs that move or grow.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "control/test_world.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;
using ledger::JobState;
using ledger::SliceState;
using ::testing::HasSubstr;

constexpr int64_t kHostW = 70;  // of LOCAL: 30 + 2 x 20 W (src/fleet/series.cc)

/// Four hosts of two GPUs: l0r0h0 and l0r0h1 on one leaf, l1r0h0 and l1r0h1 on the other.
class HostsControlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "hosts-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    w.emplace(dir_);
  }
  void TearDown() override {
    w.reset();
    fs::remove_all(dir_);
  }
  void policy(std::string_view yaml) {
    w->policy = reserve::parse_policy(yaml, "policy.yaml").value();
    w->restart();
  }
  void up() { w->up(); }
  request::JobSpec spec(int64_t gpus, const std::string& host = "") {
    request::JobSpec out;
    out.name = "train", out.gpus = gpus, out.command = {"true"}, out.duration_ns = 2 * kHour;
    if (!host.empty()) out.nodelist = {host};
    return out;
  }
  std::string submit(const request::JobSpec& spec) {
    const std::string id = w->c->jobs.submit(spec, "batch").value();
    up();
    return id;
  }
  std::string host_of(const std::string& job) {
    return w->c->core.state().vms.at(w->job(job).ranks.at(0).place.vm).host;
  }
  Result<std::string> hold(const std::string& name, int64_t gpus, int64_t start_ns = 0) {
    return w->c->slices.hold({name, gpus, "LOCAL", kHour, start_ns, {}}, w->c->jobs.reservations());
  }
  void save_checkpoint(const std::string& job) {
    const ledger::Job& of = w->job(job);
    const std::string& vm = of.ranks.at(0).place.vm;
    const node::SyncReply wanted = w->launcher().desired(vm);
    node::SyncRequest request;
    request.boot_id = w->c->core.state().vms.at(vm).boot_id, request.have_generation = wanted.generation;
    for (const auto& task : wanted.tasks) {
      node::TaskReport report;
      report.id = task.id, report.state = node::TaskState::kRunning;
      request.tasks.push_back(report);
    }
    node::MetricsLine line;
    line.id = {job, static_cast<int>(of.attempt), 0}, line.line_no = ++lines_[line.id.text()];
    line.line = R"({"event":"checkpoint","step":)" + std::to_string(of.checkpoint_step + 10) + "}";
    request.metrics.push_back(line);
    w->launcher().on_report(vm, request);
    w->settle();
  }

  fs::path dir_;
  std::optional<World> w;
  std::map<std::string, int64_t> lines_;
};

TEST_F(HostsControlTest, AHostThatLosesItsNodesTooOftenIsTheLastToBeUsed) {
  policy("lemon: {losses: 2, within: 1d}");
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(hold("s" + std::to_string(i), 2));
    ASSERT_TRUE(w->c->slices.commit("s" + std::to_string(i)));
    up();
    const ledger::Slice& slice = w->slice("s" + std::to_string(i));
    ASSERT_EQ(slice.terms.hosts[0].host, "l0r0h0") << "the first one, while it is as good as the others";
    w->c->slices.node_down(slice.vms[0], "a fan stands still");
    ASSERT_TRUE(w->c->slices.release("s" + std::to_string(i), "by hand"));
    w->settle();
    w->pass(kMinute);  // it is no suspect any more
    w->settle();
  }
  EXPECT_TRUE(w->c->core.snapshot().host_use(0, w->env.now_ns).is_lemon);
  ASSERT_TRUE(hold("third", 2));
  EXPECT_NE(w->slice("third").terms.hosts[0].host, "l0r0h0");
  ASSERT_TRUE(hold("all", 6)) << "it is used when nothing else is left";
  w->restart();
  EXPECT_TRUE(w->c->core.snapshot().host_use(0, w->env.now_ns).is_lemon) << "a restart forgets nothing";
  w->c->core.stage(ledger::HostDrained{"l0r0h0", "a new fan"});
  w->c->core.stage(ledger::HostResumed{"l0r0h0"});
  w->settle();
  EXPECT_FALSE(w->c->core.snapshot().host_use(0, w->env.now_ns).is_lemon) << "it was seen to";
}

TEST_F(HostsControlTest, ATokenIsGoodForItsVmAloneAndAsLongAsThatIsWanted) {
  w->ready_slice("demo", 4);
  const auto shows = [&](const std::string& name, const std::string& token) {
    const auto vm = w->c->nodes.identify(name, token);
    return vm ? *vm : std::string(code_name(vm.error().code));
  };
  ASSERT_EQ(w->provider.vms.size(), 2u);
  const std::string first = w->provider.vms.begin()->first, second = w->provider.vms.rbegin()->first;
  EXPECT_EQ(shows(first, "token of " + first), first);
  EXPECT_EQ(shows(second, "token of " + second), second);
  EXPECT_EQ(shows(first, "token of " + second), "unavailable") << "of another VM";
  EXPECT_EQ(shows(second, "token of " + first), "unavailable");
  EXPECT_EQ(shows(first, ""), "unavailable");
  EXPECT_EQ(shows(first, w->c->core.state().vms.at(first).token_sha256), "unavailable")
      << "its hash is no token";
  ASSERT_TRUE(w->c->slices.release("demo", "by hand"));
  w->settle();
  EXPECT_EQ(shows(first, "token of " + first), "permission_denied") << "the VM is gone";
  EXPECT_EQ(shows(first, "token of " + second), "unavailable");
  w->restart();
  EXPECT_EQ(shows(second, "token of " + second), "permission_denied") << "also after a restart";
}

TEST_F(HostsControlTest, ALemonIsForgivenWithTime) {
  policy("lemon: {losses: 1, within: 1h}");
  w->ready_slice("s", 2);
  w->c->slices.node_down(w->slice("s").vms[0], "a fan stands still");
  w->settle();
  EXPECT_TRUE(w->c->core.snapshot().host_use(0, w->env.now_ns).is_lemon);
  w->pass(kHour + kSecond);
  w->settle();
  EXPECT_FALSE(w->c->core.snapshot().host_use(0, w->env.now_ns).is_lemon);
}

TEST_F(HostsControlTest, ASliceStartsWhenTheRackHasThePowerAndNotBefore) {
  w.emplace(dir_, kHostW);  // one host of the two in each rack
  ASSERT_TRUE(hold("first", 4));
  ASSERT_TRUE(w->c->slices.commit("first"));
  up();
  ASSERT_EQ(w->slice("first").state, SliceState::kReady);
  const int64_t end_ns = w->slice("first").terms.end_ns;
  w->c->core.stage(ledger::HostDrained{"l0r0h0", "so that the next ones get the other hosts"});
  w->c->core.stage(ledger::HostDrained{"l1r0h0", "so that the next ones get the other hosts"});
  ASSERT_TRUE(hold("second", 4, end_ns));
  ASSERT_TRUE(w->c->slices.commit("second"));
  ASSERT_EQ(w->slice("second").terms.hosts[0].host, "l0r0h1");
  w->settle();
  w->pass(end_ns - w->env.now_ns + kSecond);
  ASSERT_TRUE(w->step());
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->slice("second").vms.size(), 0u) << "the VMs of the first still draw the rack's power";
  up();
  EXPECT_EQ(w->slice("first").state, SliceState::kReleased);
  EXPECT_EQ(w->slice("second").state, SliceState::kReady);
}

TEST_F(HostsControlTest, APowerCapHoldsForWhatIsNewAndEnds) {
  w->ready_slice("old", 2);
  w->c->core.stage(ledger::PowerCapped{"heat", w->c->core.fleet().sites()[0].id, "the chiller is repaired",
                                       2 * kHostW, w->env.now_ns, w->env.now_ns + 10 * kMinute});
  w->settle();
  EXPECT_THAT(hold("two", 4).error().message, HasSubstr("power"));
  w->restart();
  EXPECT_FALSE(hold("two", 4)) << "also after a restart";
  EXPECT_TRUE(hold("one", 2));
  w->pass(11 * kMinute);
  w->settle();
  EXPECT_TRUE(w->c->core.state().power_caps.empty());
  EXPECT_TRUE(hold("two", 4));
}

TEST_F(HostsControlTest, PlacementGroupsAreKeptAndToldToTheCloud) {
  policy("placement_group: {max_vms: 2}");
  w->ready_slice("demo", 8);
  ASSERT_EQ(w->provider.specs.size(), 4u);
  std::map<int, int> sizes;
  for (const cloud::VmSpec& vm : w->provider.specs) ++sizes[vm.group];
  EXPECT_EQ(sizes, (std::map<int, int>{{0, 2}, {1, 2}}));
  policy("placement_group: {max_vms: 2, split: false}");
  ASSERT_TRUE(w->c->slices.release("demo", "by hand"));
  w->settle();
  EXPECT_THAT(hold("large", 8).error().message, HasSubstr("placement group"));
  EXPECT_TRUE(hold("small", 4));
}

TEST_F(HostsControlTest, FewSwitchesAreWaitedForOnlySoLong) {
  submit(spec(2, "l0r0h0")), submit(spec(2, "l1r0h0"));
  request::JobSpec near = spec(4);
  near.max_switches = 1, near.switches_wait_ns = 5 * kMinute;
  const std::string job = submit(near);
  ASSERT_EQ(w->job(job).attempt, 0);
  EXPECT_EQ(w->c->jobs.waiting(job)->code, "topology");
  w->pass(4 * kMinute), up();
  EXPECT_EQ(w->job(job).attempt, 0);
  w->pass(kMinute), up();
  EXPECT_EQ(w->job(job).state, JobState::kRunning);
}

TEST_F(HostsControlTest, AJobThatSavesItsWorkIsMovedWhereThatLetsAnotherStart) {
  w->c->core.stage(ledger::HostDrained{"l0r0h1", "so that they lie on two leaves"});
  const std::string a = submit(spec(2)), b = submit(spec(2));
  w->c->core.stage(ledger::HostResumed{"l0r0h1"});
  ASSERT_EQ(host_of(a), "l0r0h0");
  ASSERT_EQ(host_of(b).substr(0, 2), "l1");
  w->pass(10 * kMinute);
  request::JobSpec near = spec(4);
  near.max_switches = 1, near.duration_ns = kHour;
  const std::string gang = submit(near);
  EXPECT_EQ(w->job(a).preemptions + w->job(b).preemptions, 0)
      << "neither has shown that it saves checkpoints";
  save_checkpoint(b);
  w->pass(20 * kSecond), w->settle();
  ASSERT_EQ(w->job(b).preemptions, 1);
  EXPECT_EQ(w->job(a).preemptions, 0);
  EXPECT_THAT(w->job(b).reason, HasSubstr("so that " + gang + " can start"));
  w->pass(kSecond), w->settle();
  EXPECT_EQ(w->c->jobs.waiting(gang)->code, "preempting");
  w->restart();
  w->report_job(b, node::TaskState::kExited, 0);
  up(), up();
  EXPECT_EQ(w->job(gang).state, JobState::kRunning) << "though the one that was moved asked earlier";
  EXPECT_EQ(w->job(b).state, JobState::kRunning);
  EXPECT_EQ(host_of(b), "l0r0h1");
  EXPECT_EQ(w->job(b).retries_used, 0);
}

TEST_F(HostsControlTest, NothingIsMovedThatTheGangWinsLessByThanItCosts) {
  policy("defragment: {move_cost: 5h}");
  const std::string a = submit(spec(2, "l0r0h0"));
  w->c->core.stage(ledger::HostDrained{"l0r0h1", "so that it lies on the other leaf"});
  const std::string b = submit(spec(2));
  w->c->core.stage(ledger::HostResumed{"l0r0h1"});
  save_checkpoint(b);
  request::JobSpec near = spec(4);
  near.max_switches = 1;
  const std::string gang = submit(near);
  w->pass(20 * kSecond), up();
  EXPECT_EQ(w->job(b).preemptions, 0) << "two GPUs lose 10 hours, four win 8";
  EXPECT_EQ(w->c->jobs.waiting(gang)->code, "topology");
}

TEST_F(HostsControlTest, BeforeAnEvictionTheRanksSaveTheirWorkAndTheSliceGetsAnotherNode) {
  w->ready_slice("demo", 4);
  request::JobSpec in_slice = spec(4);
  in_slice.slice = "demo";
  const std::string job = submit(in_slice);
  ASSERT_EQ(w->job(job).state, JobState::kRunning);
  const std::string vm = w->slice("demo").vms[0], host = w->c->core.state().vms.at(vm).host;
  w->provider.notices = {{"n1", vm, cloud::NoticeKind::kFreeze, 0, ""}};
  w->pass(kSecond), w->settle();
  EXPECT_TRUE(w->job(job).attempt_open) << "it stands still and goes on";
  w->provider.notices = {{"n2", vm, cloud::NoticeKind::kPreempt, w->env.now_ns + 30 * kSecond, ""}};
  w->pass(2 * kSecond), w->settle();
  EXPECT_FALSE(w->job(job).attempt_open);
  EXPECT_THAT(w->job(job).reason, HasSubstr("by the cloud: preempt of node " + vm));
  EXPECT_EQ(w->provider.notices.size(), 1u) << "its ranks are still saving their work";
  EXPECT_EQ(w->provider.vms.count(vm), 1u);
  w->restart(), w->settle();
  w->report_gone(job);
  w->settle();
  EXPECT_EQ(w->provider.notices.size(), 0u) << "it may come at once";
  EXPECT_EQ(w->provider.vms.count(vm), 0u);
  w->pass(2 * kSecond), up(), up();
  EXPECT_EQ(w->job(job).state, JobState::kRunning);
  EXPECT_EQ(w->job(job).attempt, 2);
  EXPECT_EQ(w->job(job).lost_steps, 0);
  EXPECT_EQ(w->job(job).retries_used, 0);
  for (const ledger::Rank& rank : w->job(job).ranks) EXPECT_NE(rank.place.vm, vm);
  for (const ledger::Share& share : w->slice("demo").terms.hosts) EXPECT_NE(share.host, host);
}

TEST_F(HostsControlTest, AJobGrowsWithItsSliceAtACheckpoint) {
  w->ready_slice("demo", 8);
  request::JobSpec elastic = spec(8);
  elastic.slice = "demo", elastic.can_rescale = true, elastic.min_gpus = 4, elastic.duration_ns.reset();
  const std::string job = submit(elastic);
  auto resize = [&](int64_t gpus) { return w->c->slices.resize("demo", gpus, w->c->jobs.reservations()); };
  ASSERT_TRUE(resize(4));
  w->settle();
  w->report_job(job, node::TaskState::kExited, 0);
  up();
  ASSERT_EQ(w->job(job).ranks.size(), 4u);
  EXPECT_EQ(w->job(job).gpu_milli, 4000) << "and is paid so";
  save_checkpoint(job);
  EXPECT_TRUE(w->job(job).attempt_open) << "there is nothing to grow onto";
  w->pass(kMinute);
  ASSERT_TRUE(resize(8));
  up(), up();
  EXPECT_TRUE(w->job(job).attempt_open) << "not between checkpoints";
  save_checkpoint(job);
  EXPECT_FALSE(w->job(job).attempt_open);
  w->report_job(job, node::TaskState::kExited, 0);
  up();
  EXPECT_EQ(w->job(job).ranks.size(), 8u);
  EXPECT_EQ(w->job(job).attempt, 3);
  EXPECT_EQ(w->job(job).retries_used, 0);
}

}  // namespace
}  // namespace th::control
