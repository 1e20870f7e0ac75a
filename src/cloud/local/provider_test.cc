#include "cloud/local/provider.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "base/units.h"

namespace th::cloud {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kTimeout = 20 * kSecond;

template <class Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// A stand-in for th-node: a shell script that the provider starts the same way.
class LocalProviderTest : public testing::Test {
 protected:
  LocalProviderTest() {
    std::string pattern = fs::path(testing::TempDir()) / "provider-XXXXXX";
    state_ = mkdtemp(pattern.data());
    use("exec sleep 300");
  }
  ~LocalProviderTest() override {
    auto vms = provider_->list(kTimeout).value();
    for (const VmState& vm : vms) EXPECT_TRUE(provider_->remove(vm.vm, kTimeout));
    fs::remove_all(state_);
  }

  void use(const std::string& script, int64_t stop_grace_ms = 5000) {
    fs::path program = state_ / "node.sh";
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    chmod(program.c_str(), 0755);
    LocalProviderOptions options;
    options.state_dir = state_;
    options.node_program = program;
    options.controller_url = "http://127.0.0.1:1";
    options.stop_grace_ms = stop_grace_ms;
    provider_ = make_local_provider(options).value();
  }

  static CreateVms request(const std::string& token, std::vector<std::string> names) {
    CreateVms request;
    request.client_token = token;
    for (const std::string& name : names) {
      VmSpec spec;
      spec.vm = name;
      spec.host = "host-of-" + name;
      spec.series = "LOCAL";
      spec.gpus = 2;
      request.vms.push_back(spec);
    }
    return request;
  }

  ProcessId process_of(const std::string& vm) {
    ProcessId process;
    std::ifstream(state_ / "vms" / vm / "node.pid") >> process.pid >> process.start_ticks;
    return process;
  }
  VmPhase phase_of(const std::string& vm) { return provider_->describe(vm, kTimeout).value().phase; }

  fs::path state_;
  std::unique_ptr<Provider> provider_;
};

TEST_F(LocalProviderTest, MakesAProcessInASessionOfItsOwn) {
  auto vms = provider_->create(request("t1", {"a", "b"}), kTimeout).value();
  ASSERT_EQ(vms.size(), 2u);
  EXPECT_EQ(vms[1].vm, "b");
  EXPECT_EQ(vms[1].host, "host-of-b");
  EXPECT_EQ(vms[1].client_token, "t1");
  EXPECT_EQ(vms[1].phase, VmPhase::kRunning);
  ProcessId process = process_of("b");
  EXPECT_TRUE(is_running(process));
  EXPECT_EQ(getsid(process.pid), process.pid);

  fs::path config = state_ / "vms/b/node.json";
  struct stat info {};
  ASSERT_EQ(stat(config.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  Json json = parse_json(read_file(config).value(), "node.json").value();
  EXPECT_EQ(json["vm"], "b");
  EXPECT_EQ(json["expect"]["gpus"], 2);
  EXPECT_EQ(json["jobs_dir"], (state_ / "jobs").string());
  EXPECT_EQ(sha256_hex(json["token"].get<std::string>()), vms[1].node_token_sha256);
  EXPECT_NE(vms[0].node_token_sha256, vms[1].node_token_sha256);
}

TEST_F(LocalProviderTest, MakesNoOtherHardwareThanThisMachine) {
  CreateVms wrong = request("t1", {"a", "b"});
  wrong.vms[1].series = "ND_A100_v4";
  auto vms = provider_->create(wrong, kTimeout);
  ASSERT_FALSE(vms);
  EXPECT_EQ(vms.error().code, Code::kUnsatisfiable);
  EXPECT_TRUE(provider_->list(kTimeout).value().empty());
}

TEST_F(LocalProviderTest, TheSameTokenMakesNothingNew) {
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  ProcessId before = process_of("a");
  use("exec sleep 300");  // as after a restart of the controller
  auto again = provider_->create(request("t1", {"a", "b"}), kTimeout).value();
  EXPECT_EQ(process_of("a"), before);
  EXPECT_EQ(again[1].phase, VmPhase::kRunning) << "what a crash left out is made";
  EXPECT_EQ(provider_->create(request("t2", {"a"}), kTimeout).error().code, Code::kAlreadyExists);
  EXPECT_EQ(phase_of("a"), VmPhase::kRunning);
}

TEST_F(LocalProviderTest, AllOrNone) {
  ASSERT_TRUE(provider_->create(request("t1", {"b"}), kTimeout));
  EXPECT_EQ(provider_->create(request("t2", {"a", "b"}), kTimeout).error().code, Code::kAlreadyExists);
  EXPECT_FALSE(fs::exists(state_ / "vms/a"));
  EXPECT_EQ(phase_of("b"), VmPhase::kRunning) << "another's VM stays";
}

TEST_F(LocalProviderTest, AKilledNodeIsDeadAndStaysDead) {
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  kill(process_of("a").pid, SIGKILL);
  EXPECT_TRUE(eventually([&] { return phase_of("a") == VmPhase::kDead; }));
  EXPECT_EQ(provider_->create(request("t1", {"a"}), kTimeout).value()[0].phase, VmPhase::kDead);
}

TEST_F(LocalProviderTest, AReusedPidIsNotTheNode) {
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  ProcessId node = process_of("a");
  ProcessId self = find_process(getpid()).value();
  std::ofstream(state_ / "vms/a/node.pid") << self.pid << ' ' << self.start_ticks + 1 << '\n';
  EXPECT_EQ(phase_of("a"), VmPhase::kDead);
  EXPECT_TRUE(provider_->remove("a", kTimeout)) << "and this test survives it";
  kill(node.pid, SIGKILL);
}

TEST_F(LocalProviderTest, RemoveEndsWhatAKilledNodeLeftBehind) {
  use("sh -c 'trap \"\" TERM; sleep 301' & exec sleep 300");
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  ProcessId node = process_of("a");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(node.pid, SIGKILL);
  EXPECT_TRUE(provider_->remove("a", kTimeout));
  EXPECT_FALSE(fs::exists(state_ / "vms/a"));
  EXPECT_EQ(kill_leftovers(node.pid, ""), 0) << "nothing of its session is left";
  EXPECT_TRUE(provider_->remove("a", kTimeout)) << "again is harmless";
}

TEST_F(LocalProviderTest, RemoveKillsANodeThatDoesNotListen) {
  use("trap '' TERM; while true; do sleep 300; done", 200);
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  ProcessId node = process_of("a");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(provider_->remove("a", kTimeout));
  EXPECT_FALSE(is_running(node));
}

TEST_F(LocalProviderTest, AHalfMadeVmIsListedAndRemoved) {
  fs::create_directory(state_ / "vms/half");
  auto vms = provider_->list(kTimeout).value();
  ASSERT_EQ(vms.size(), 1u);
  EXPECT_EQ(vms[0].phase, VmPhase::kCreating);
  EXPECT_TRUE(provider_->remove("half", kTimeout));
  EXPECT_EQ(provider_->describe("half", kTimeout).error().code, Code::kNotFound);
}

TEST_F(LocalProviderTest, QuotesTheListPriceOfItsOneSeries) {
  // The catalogue's LOCAL: 2 GPUs at $0.10 an hour.
  EXPECT_EQ(provider_->quote({"LOCAL", 4, false, ""}, kTimeout).value().microusd_per_vm_hour, 200'000);
  EXPECT_EQ(provider_->quote({"ND_H100_v5", 1, false, ""}, kTimeout).error().code, Code::kUnsatisfiable);
  EXPECT_EQ(provider_->reserve({"t", "LOCAL", 1, "", 0, kDay}, kTimeout).error().code, Code::kUnsatisfiable);
}

TEST_F(LocalProviderTest, ARehearsedNoticeComesUntilItIsAcknowledged) {
  ASSERT_TRUE(provider_->create(request("t1", {"a", "b"}), kTimeout));
  EXPECT_TRUE(provider_->events(kTimeout).value().empty());
  std::ofstream(state_ / "vms/b/notice.json") << R"({"kind": "preempt", "in_s": 30})";
  std::ofstream(state_ / "vms/a/notice.json") << R"({"kind": "explode"})";
  auto notices = provider_->events(kTimeout).value();
  ASSERT_EQ(notices.size(), 1u) << "what is not a notice is left out";
  EXPECT_EQ(notices[0].vm, "b");
  EXPECT_EQ(notices[0].kind, NoticeKind::kPreempt);
  EXPECT_NEAR(static_cast<double>(notices[0].not_before_ns - Env::real().unix_ns()), 30e9, 5e9);
  EXPECT_EQ(provider_->events(kTimeout).value()[0].id, notices[0].id);
  EXPECT_TRUE(provider_->acknowledge("b/1", kTimeout)) << "an older notice";
  EXPECT_EQ(provider_->events(kTimeout).value().size(), 1u);
  EXPECT_TRUE(provider_->acknowledge(notices[0].id, kTimeout));
  EXPECT_TRUE(provider_->events(kTimeout).value().empty());
}

TEST_F(LocalProviderTest, StopLeavesNothingToPayFor) {
  ASSERT_TRUE(provider_->create(request("t1", {"a"}), kTimeout));
  EXPECT_EQ(provider_->stop("a", kTimeout).value().phase, VmPhase::kDead);
  EXPECT_EQ(provider_->stop("a", kTimeout).error().code, Code::kNotFound);
}

TEST_F(LocalProviderTest, RefusesWhatItCannotName) {
  EXPECT_EQ(provider_->create(request("t", {"../x"}), kTimeout).error().code, Code::kInvalidArgument);
  EXPECT_EQ(provider_->create(request("t", {"a", "a"}), kTimeout).error().code, Code::kInvalidArgument);
  EXPECT_EQ(provider_->create(request("", {"a"}), kTimeout).error().code, Code::kInvalidArgument);
  EXPECT_EQ(provider_->create(request("t", {}), kTimeout).error().code, Code::kInvalidArgument);
  EXPECT_EQ(provider_->remove("../x", kTimeout).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace th::cloud
