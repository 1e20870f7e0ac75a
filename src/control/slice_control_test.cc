// Slices: alternatives where the cloud refuses, VMs that are kept warm, checks before the hand-over, idle
// ones.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "control/data_sets.h"
#include "control/stacks.h"
#include "control/test_world.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;
using ledger::SliceState;
using ledger::VmState;
using ::testing::HasSubstr;

class SliceControlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "slices-XXXXXX").string();
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
  request::SliceSpec spec(const std::string& name, int64_t gpus) {
    return {name, gpus, "LOCAL", kHour, 0, {}};
  }
  void acquire(const request::SliceSpec& spec) {
    ASSERT_TRUE(w->c->slices.hold(spec, w->c->jobs.reservations()));
    ASSERT_TRUE(w->c->slices.commit(spec.name));
    w->settle();
  }
  /// The first rank of each gang that the nodes are to run wrote this line, and every rank ends with
  /// `exit_code`.
  void end_checks(const std::string& line, int exit_code) {
    for (const auto& [id, vm] : w->c->core.state().vms) {
      const node::SyncReply wanted = w->launcher().desired(id);
      node::SyncRequest request;
      request.boot_id = "boot-" + id, request.have_generation = wanted.generation;
      for (const node::Task& task : wanted.tasks) {
        node::TaskReport report;
        report.id = task.id, report.state = node::TaskState::kExited, report.exit_code = exit_code;
        request.tasks.push_back(report);
        if (task.id.rank == 0) request.metrics.push_back({task.id, 1, line});
      }
      w->launcher().on_report(id, request);
    }
    w->settle();
    for (const auto& [id, vm] : w->c->core.state().vms) {
      node::SyncRequest request;
      request.boot_id = "boot-" + id, request.have_generation = w->launcher().generation(id);
      w->launcher().on_report(id, request);
    }
    w->settle();
  }
  VmState state_of(const std::string& vm) { return w->c->core.state().vms.at(vm).state; }

  fs::path dir_;
  std::optional<World> w;
};

TEST_F(SliceControlTest, TheNextZoneIsTriedWhereTheFirstHasNoCapacity) {
  request::SliceSpec asked = spec("demo", 4);
  asked.zones = {"1", "2", "3"};
  w->provider.refuse_zones = {"1", "2"};
  acquire(asked);
  EXPECT_EQ(w->provider.zones, (std::vector<std::string>{"1", "2", "3"}));
  const ledger::Slice& slice = w->slice("demo");
  EXPECT_EQ(slice.terms.slice, "slice-3");
  EXPECT_EQ(slice.requested.zone, "3");
  EXPECT_EQ(slice.state, SliceState::kStarting);
  EXPECT_EQ(slice.terms.hosts[0].host, "l0r0h0") << "a host is no worse for what its cloud lacks";
  const ledger::Slice& first = w->c->core.state().slices.at("slice-1");
  EXPECT_EQ(first.state, SliceState::kFailed);
  EXPECT_EQ(first.fault_code, "no_capacity");
  EXPECT_THAT(first.reason, HasSubstr("zone 1 is full; slice-2 is the next alternative"));
  w->up();
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
}

TEST_F(SliceControlTest, AfterTheLastAlternativeTheCustomerLearnsWhy) {
  request::SliceSpec asked = spec("demo", 4);
  asked.zones = {"1", "2"}, asked.or_series = {"ND_H100_v5"};  // which this cloud does not make
  w->provider.refuse_zones = {"1", "2"};
  acquire(asked);
  const ledger::Slice& slice = w->slice("demo");
  EXPECT_EQ(slice.state, SliceState::kFailed);
  EXPECT_EQ(slice.fault_code, "no_capacity");
  EXPECT_THAT(slice.reason, HasSubstr("zone 2 is full; no other alternative can be had: ND_H100_v5: "));
  EXPECT_TRUE(w->provider.vms.empty());
  for (const auto& [id, vm] : w->c->core.state().vms) EXPECT_EQ(vm.state, VmState::kDeleted);
}

TEST_F(SliceControlTest, ASeriesThatTheCloudDoesNotMakeIsPassedOver) {
  request::SliceSpec asked = spec("demo", 4);
  asked.series = "ND_H100_v5", asked.or_series = {"LOCAL"};
  const auto offer = w->c->slices.offer(asked, w->c->jobs.reservations());
  ASSERT_TRUE(offer) << offer.error().message;
  EXPECT_EQ(offer->series, "LOCAL");
  acquire(asked);
  EXPECT_EQ(w->slice("demo").terms.series, "LOCAL");
}

TEST_F(SliceControlTest, AWrongRequestIsNotTriedElsewhere) {
  request::SliceSpec asked = spec("demo", 4);
  asked.zones = {"1", "2"};
  w->provider.refuse = "bad image", w->provider.refuse_code = Code::kInvalidArgument;
  acquire(asked);
  EXPECT_EQ(w->slice("demo").state, SliceState::kFailed);
  EXPECT_EQ(w->slice("demo").fault_code, "invalid_argument");
  EXPECT_EQ(w->provider.creates.size(), 1u);
}

TEST_F(SliceControlTest, AVmIsKeptForTheNextJobOfTheSameAccount) {
  policy("warm_pool: {vms: 2, keep: 10m}");
  const std::string first = w->submit("", 2);
  w->up();
  ASSERT_EQ(w->job(first).state, ledger::JobState::kRunning);
  const std::string vm = w->job(first).ranks[0].place.vm;
  w->report_job(first, node::TaskState::kExited, 0);
  EXPECT_EQ(state_of(vm), VmState::kKept);
  EXPECT_EQ(w->slice(first).state, SliceState::kReleased);
  w->restart();
  w->settle();
  EXPECT_EQ(state_of(vm), VmState::kKept) << "a restart forgets nothing";
  const std::string second = w->submit("", 2);
  w->settle();
  EXPECT_EQ(w->provider.creates.size(), 1u);
  ASSERT_EQ(w->job(second).ranks.size(), 2u);
  EXPECT_EQ(w->job(second).ranks[0].place.vm, vm) << "at once, without a boot";
  w->up();
  w->report_job(second, node::TaskState::kExited, 0);
  ASSERT_EQ(state_of(vm), VmState::kKept);
  w->pass(10 * kMinute);
  w->settle();
  EXPECT_EQ(state_of(vm), VmState::kDeleted);
  EXPECT_TRUE(w->provider.vms.empty());
}

TEST_F(SliceControlTest, AKeptVmMakesRoomForWhoCannotUseIt) {
  policy("warm_pool: {vms: 8, keep: 10m}");
  const std::string first = w->submit("", 2);
  w->up();
  const std::string vm = w->job(first).ranks[0].place.vm;
  w->report_job(first, node::TaskState::kExited, 0);
  ASSERT_EQ(state_of(vm), VmState::kKept);
  request::SliceSpec all = spec("all", 8);
  all.stack = "train";
  acquire(all);
  EXPECT_EQ(state_of(vm), VmState::kDeleted) << "it does not hold that stack";
  EXPECT_EQ(w->slice("all").vms.size(), 4u);
}

TEST_F(SliceControlTest, AKeptVmThatDiesIsCleanedAway) {
  policy("warm_pool: {vms: 8, keep: 10m}");
  const std::string first = w->submit("", 2);
  w->up();
  const std::string vm = w->job(first).ranks[0].place.vm;
  w->report_job(first, node::TaskState::kExited, 0);
  ASSERT_EQ(state_of(vm), VmState::kKept);
  for (int i = 0; i < 40; ++i) w->pass(kSecond), w->settle();  // nobody hears of it
  EXPECT_EQ(state_of(vm), VmState::kDeleted);
}

TEST_F(SliceControlTest, ASliceIsReleasedWhenItWasIdleForLong) {
  request::SliceSpec asked = spec("demo", 4);
  asked.idle_ns = 30 * kSecond;
  acquire(asked);
  w->up();
  const std::string job = w->submit("demo", 4);
  w->up();
  ASSERT_EQ(w->job(job).state, ledger::JobState::kRunning);
  w->pass(kMinute);
  ASSERT_TRUE(w->step());
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady) << "something runs on it";
  w->report_job(job, node::TaskState::kExited, 0);
  w->pass(31 * kSecond);
  w->settle();
  EXPECT_THAT(w->slice("demo").reason, HasSubstr("idle for 30s"));
}

TEST_F(SliceControlTest, ANodeThatDoesNotHoldTheStackIsNotHandedOver) {
  ASSERT_TRUE(add_stack(w->c->core, "name: mine\nversion: \"2\"\nvalidate: check-it\nenvironment: {A: b}\n"));
  request::SliceSpec asked = spec("demo", 2);
  asked.stack = "mine";
  acquire(asked);
  EXPECT_EQ(w->slice("demo").requested.stack, "mine@2");
  const std::string vm = w->slice("demo").vms[0];
  w->c->checks.dialled_in(w->c->core.state().vms.at(vm), "boot-" + vm, "127.0.0.1");
  w->settle();
  ASSERT_EQ(w->launcher().desired(vm).tasks.size(), 1u);
  EXPECT_EQ(w->launcher().desired(vm).tasks[0].env.at("A"), "b");
  EXPECT_EQ(state_of(vm), VmState::kUp);
  end_checks(R"({"event":"check","reason":"check-it is missing"})", 1);
  EXPECT_EQ(state_of(vm), VmState::kDeleted);
  EXPECT_THAT(w->c->core.state().vms.at(vm).reason,
              HasSubstr("does not match stack mine@2: check-it is missing"));
  const std::string next = w->slice("demo").vms.back();
  ASSERT_NE(next, vm) << "another one takes its place";
  w->c->checks.dialled_in(w->c->core.state().vms.at(next), "boot-" + next, "127.0.0.1");
  w->settle();
  end_checks("{}", 0);
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
  EXPECT_TRUE(w->launcher().desired(next).tasks.empty());
}

TEST_F(SliceControlTest, AStackKeepsItsContent) {
  const std::string yaml = "name: mine\nversion: \"1\"\n";
  ASSERT_TRUE(add_stack(w->c->core, yaml));
  EXPECT_TRUE(add_stack(w->c->core, yaml)) << "the same again";
  EXPECT_EQ(add_stack(w->c->core, yaml + "about: other\n").error().code, Code::kAlreadyExists);
  EXPECT_EQ(add_stack(w->c->core, "name: base\nversion: \"1\"\n").error().code, Code::kAlreadyExists);
  ASSERT_TRUE(add_stack(w->c->core, "name: mine\nversion: \"10\"\n"));
  ASSERT_TRUE(add_stack(w->c->core, "name: mine\nversion: \"9\"\n"));
  EXPECT_EQ(find_stack(w->c->core.state(), "mine")->version, "10");
  EXPECT_EQ(find_stack(w->c->core.state(), "mine@1")->version, "1");
  EXPECT_THAT(find_stack(w->c->core.state(), "nine").error().message, HasSubstr("hpc@1, mine@1"));
  EXPECT_FALSE(w->c->slices.hold(
      [&] {
        auto asked = spec("demo", 2);
        asked.stack = "nine";
        return asked;
      }(),
      w->c->jobs.reservations()));
}

TEST_F(SliceControlTest, AJobsDataSetIsStagedInTheVersionOfItsSubmission) {
  auto& core = w->c->core;
  for (const char* version : {"1", "2"})
    core.stage(ledger::DataSetAdded{"code", version, std::string("/sets/code/") + version, "{}", 1, {}});
  request::JobSpec spec;
  spec.name = "t";
  EXPECT_EQ(with_data_set(core.state(), spec).value(), spec);
  spec.data = "code";
  const request::JobSpec newest = with_data_set(core.state(), spec).value();
  EXPECT_EQ(newest.data, "code@2");
  EXPECT_EQ(newest.stage.at("data/code"), "/sets/code/2");
  EXPECT_EQ(with_data_set(core.state(), newest).value(), newest);
  spec.data = "code@1";
  EXPECT_EQ(with_data_set(core.state(), spec)->stage.at("data/code"), "/sets/code/1");
  spec.stage["data/code"] = "/mine";
  EXPECT_EQ(with_data_set(core.state(), spec).error().code, Code::kInvalidArgument);
  spec.data = "cod";
  EXPECT_THAT(with_data_set(core.state(), spec).error().message, HasSubstr("there are code@1, code@2"));
}

TEST_F(SliceControlTest, NodesThatAddUpSlowlyAreReplaced) {
  w->min_all_reduce = 50'000'000;
  w->restart();
  acquire(spec("demo", 4));
  w->validate_nodes();
  w->settle();
  const std::vector<std::string> vms = w->slice("demo").vms;
  ASSERT_EQ(vms.size(), 2u);
  ASSERT_EQ(w->launcher().desired(vms[0]).tasks.size(), 1u);
  EXPECT_EQ(w->launcher().desired(vms[0]).tasks[0].argv[1], "all-reduce");
  EXPECT_EQ(w->slice("demo").state, SliceState::kStarting);
  end_checks(R"({"event":"all_reduce","bytes_per_s":49000000})", 0);
  EXPECT_EQ(state_of(vms[0]), VmState::kDeleted) << "which of two is slow cannot be told";
  EXPECT_THAT(w->c->core.state().vms.at(vms[0]).reason,
              HasSubstr("moves 49 MB/s a rank, want at least 50 MB/s"));
  w->validate_nodes();
  w->settle();
  end_checks(R"({"event":"all_reduce","bytes_per_s":51000000})", 0);
  EXPECT_EQ(w->slice("demo").state, SliceState::kReady);
  EXPECT_EQ(w->slice("demo").vms.size(), 4u);
}

/// The script runs in a real shell; the programs that it asks are given.
std::string problem_of(const std::string& script, const fs::path& dir) {
  const fs::path metrics = dir / "metrics";
  fs::remove(metrics);
  std::ofstream(dir / "script") << script;
  const std::string command = "TH_METRICS=" + metrics.string() + " PATH=" + dir.string() + ":$PATH sh " +
                              (dir / "script").string() + " > " + (dir / "out").string() + " 2>&1";
  const int status = std::system(command.c_str());
  std::string line;
  std::getline(std::ifstream(metrics), line);
  EXPECT_EQ(status == 0, line.empty()) << line;
  return line;
}

void put_program(const fs::path& path, const std::string& text) {
  std::ofstream(path) << "#!/bin/sh\n" << text;
  fs::permissions(path, fs::perms::owner_all);
}

TEST_F(SliceControlTest, TheCheckNamesWhatIsMissing) {
  registry::Stack stack;
  stack.name = "mine", stack.version = "1", stack.packages = {"coreutils"}, stack.programs = {"sh"};
  stack.validate = "test \"it's\" = \"it's\"";
  EXPECT_EQ(problem_of(check_script(stack, 0), dir_), "");
  stack.programs = {"sh", "no-such-program"};
  EXPECT_THAT(problem_of(check_script(stack, 0), dir_), HasSubstr("program no-such-program is missing"));
  stack.packages = {"no-such-package"};
  EXPECT_THAT(problem_of(check_script(stack, 0), dir_),
              HasSubstr("packages are missing: no-such-package; apt-get"));
  stack.packages.clear(), stack.programs.clear(), stack.validate = "echo 'say \"no\" \\'; exit 3";
  EXPECT_THAT(problem_of(check_script(stack, 0), dir_), HasSubstr("its validation command failed: say  no"));
  EXPECT_EQ(check_script(registry::Stack{"base", "1", {}, {}, {}, {}, {}, {}}, 0), "");
}

// No GPU is here: a program in nvidia-smi's place answers as it does.
TEST_F(SliceControlTest, GpusThatAreFewerOrBrokenAreFound) {
  const std::string script = check_script(registry::Stack{"base", "1", {}, {}, {}, {}, {}, {}}, 2);
  auto smi = [&](const std::string& ecc, const std::string& link) {
    put_program(dir_ / "nvidia-smi", "case \"$1 $2\" in\n\"nvlink --status\") echo 'Link 0: " + link +
                                         "';;\n--query-gpu=index,*) printf '0, 0\\n1, " + ecc +
                                         "\\n';;\n*) printf '0\\n1\\n';;\nesac\n");
  };
  auto kernel = [&](const std::string& line) { put_program(dir_ / "dmesg", "echo '" + line + "'\n"); };
  kernel("NVRM: Xid (PCI:0000:0f:00): 13, a kernel of the user's");
  smi("0", "26.562 GB/s");
  EXPECT_EQ(problem_of(script, dir_), "");
  EXPECT_THAT(problem_of(check_script(registry::Stack{"base", "1", {}, {}, {}, {}, {}, {}}, 8), dir_),
              HasSubstr("nvidia-smi shows 2 GPUs, want 8"));
  smi("3", "26.562 GB/s");
  EXPECT_THAT(problem_of(script, dir_), HasSubstr("uncorrected ECC errors: GPU 1: 3"));
  smi("0", "<inactive>");
  EXPECT_THAT(problem_of(script, dir_), HasSubstr("1 NVLinks are inactive"));
  smi("[N/A]", "26.562 GB/s");
  kernel("NVRM: Xid (PCI:0000:0f:00): 79, GPU has fallen off the bus.");
  EXPECT_THAT(problem_of(script, dir_), HasSubstr("79, GPU has fallen off the bus"));
}

}  // namespace
}  // namespace th::control
