// What is said to slurmrestd and what is read from it; and, where TH_SLURM_URL, TH_SLURM_TOKEN and
// TH_SLURM_FOLDER name one (tests/cluster/slurm_test.py does), gangs on a real Slurm with the nodes n1 … n4.

#include "launch/slurm/launcher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace th::launch {
namespace {

/// Ranks 0 and 2 on n3 with two GPUs and one, rank 1 on n1 with one.
GangSpec gang(std::vector<std::string> argv) {
  GangSpec gang;
  gang.job = "job-7";
  gang.attempt = 2;
  gang.argv = std::move(argv);
  gang.env = {{"SEED", "5"}, {"TH_JOB_ID", "mine"}};
  gang.master_port = 20'123;
  gang.memory_bytes = 100 << 20;
  gang.ranks = {{"vm-c", "n3", "", {0, 1}}, {"vm-a", "n1", "", {0}}, {"vm-c", "n3", "", {2}}};
  return gang;
}

TEST(SlurmApi, TheBodyAsksForOurPlacement) {
  const Json body = submit_body(gang({"echo", "it's"}), {"batch", "lab", "high"}, "/jobs/job-7", "/bin");
  const Json& job = body["job"];
  EXPECT_EQ(job["name"], "th:job-7.2");
  EXPECT_EQ(job["nodelist"], "n1,n3");
  EXPECT_EQ(job["nodes"], Json({2, 2}));
  EXPECT_EQ(job["tasks"], 3);
  EXPECT_EQ(job["gpus_per_node"], 3);
  EXPECT_EQ(job["memory_per_node"], 200);
  EXPECT_EQ(job["partition"], "batch");
  EXPECT_EQ(job["account"], "lab");
  EXPECT_EQ(job["qos"], "high");
  EXPECT_EQ(job["environment"]["MASTER_ADDR"], "n3");
  EXPECT_EQ(job["environment"]["SEED"], "5");
  EXPECT_EQ(job["environment"]["TH_JOB_ID"], "job-7");
  EXPECT_NE(body["script"].get<std::string>().find("'echo' 'it'\\''s'"), std::string::npos);
  EXPECT_FALSE(submit_body(gang({"true"}), {}, "/jobs/job-7", "/bin")["job"].contains("partition"));
}

TEST(SlurmApi, ReadsJobsAndRefusals) {
  auto json =
      parse_json(R"({"jobs":[{"job_id":4,"name":"a","job_state":"FAILED","state_reason":"NonZeroExitCode",
      "exit_code":768,"restart_cnt":1,"start_time":17,"end_time":null}]})",
                 "test");
  const SlurmJob job = parse_jobs(*json).value().at(0);
  EXPECT_EQ(job, (SlurmJob{4, "a", "FAILED", "NonZeroExitCode", 768, 1, 17 * kSecond, 0}));
  EXPECT_TRUE(job.has_ended());
  EXPECT_FALSE(parse_jobs(*parse_json(R"({"jobs":[{"job_id":"4"}]})", "test")));
  auto refused =
      parse_submitted(*parse_json(R"({"errors":[{"error":"Invalid account"}],"job_id":0})", "test"));
  EXPECT_EQ(refused.error().message, "Slurm refuses the job: Invalid account");
  EXPECT_EQ(parse_exit("143 17\n")->code, 143);
  for (const char* bad : {"", "3", "a 1", "256 1", "-1 1"}) EXPECT_FALSE(parse_exit(bad)) << bad;
}

std::string env_or(const char* name) { return std::getenv(name) == nullptr ? "" : std::getenv(name); }

class SlurmCluster : public testing::Test {
 protected:
  void SetUp() override {
    if (env_or("TH_SLURM_URL").empty()) GTEST_SKIP() << "no Slurm is named in TH_SLURM_URL";
    options_ = {.url = env_or("TH_SLURM_URL"),
                .user = "root",
                .token = env_or("TH_SLURM_TOKEN"),
                .folder = env_or("TH_SLURM_FOLDER"),
                .poll_ns = kSecond / 4};
    options_.queue_of = [](const GangSpec&) { return SlurmQueue{"batch", "lab", "high"}; };
  }

  GangSpec new_gang(const std::string& script) {
    GangSpec spec = gang({"bash", "-c", script});
    spec.job = "job-" + std::to_string(getpid()) + "-" +
               testing::UnitTest::GetInstance()->current_test_info()->name();
    return spec;
  }

  /// Every event until the gang is in `state`; its last.
  GangChanged wait_for(SlurmLauncher& launcher, GangState state, int seconds = 30) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (std::chrono::steady_clock::now() < end) {
      for (Event& event : launcher.take_events()) {
        if (auto* changed = std::get_if<GangChanged>(&event); changed != nullptr && changed->state == state)
          return *changed;
        if (auto* rank = std::get_if<RankChanged>(&event)) ranks_[rank->report.id.rank] = *rank;
        if (auto* line = std::get_if<MetricsArrived>(&event)) lines_.push_back(line->line.line);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ADD_FAILURE() << "the gang did not become " << state_name(state);
    return {};
  }
  void end(SlurmLauncher& launcher, const GangSpec& spec) {
    launcher.stop(spec.job);
    wait_for(launcher, GangState::kGone);
  }
  std::string log(SlurmLauncher& launcher, const GangSpec& spec, int rank) {
    return read_file(launcher.log_of({spec.job, spec.attempt, rank})).value_or("no log");
  }

  SlurmOptions options_;
  std::map<int, RankChanged> ranks_;
  std::vector<std::string> lines_;
};

TEST_F(SlurmCluster, AGangRunsWhereWePlacedIt) {
  SlurmLauncher launcher(options_);
  GangSpec spec = new_gang(
      "echo $(hostname) $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $TH_GPUS $SEED $(cat note) at "
      "$MASTER_ADDR\n"
      "if [ -n \"$TH_METRICS\" ]; then echo '{\"step\":1}' >> $TH_METRICS; fi\nsleep 1");
  spec.files = {{"note", "hello"}};
  ASSERT_TRUE(launcher.start(spec));
  ASSERT_TRUE(launcher.start(spec));  // again is harmless
  wait_for(launcher, GangState::kRunning);
  wait_for(launcher, GangState::kSucceeded);
  EXPECT_EQ(log(launcher, spec, 0), "n3 0/3 0/2 0,1 5 hello at n3\n");
  EXPECT_EQ(log(launcher, spec, 1), "n1 1/3 0/1 0 5 hello at n3\n");
  EXPECT_EQ(log(launcher, spec, 2), "n3 2/3 1/2 2 5 hello at n3\n");
  EXPECT_EQ(lines_, std::vector<std::string>{"{\"step\":1}"});
  EXPECT_EQ(ranks_[1].report.exit_code, 0);
  EXPECT_EQ(ranks_[1].vm, "vm-a");
  end(launcher, spec);
}

TEST_F(SlurmCluster, TheRankThatFailedIsTheCause) {
  SlurmLauncher launcher(options_);
  const GangSpec spec = new_gang("if [ $RANK = 1 ]; then exit 7; fi; exec sleep 60");
  ASSERT_TRUE(launcher.start(spec));
  const GangChanged failed = wait_for(launcher, GangState::kFailed);
  ASSERT_TRUE(failed.cause);
  EXPECT_EQ(failed.cause->report.id.rank, 1);
  EXPECT_EQ(failed.cause->report.exit_code, 7);
  end(launcher, spec);
}

TEST_F(SlurmCluster, SignalsReachTheRanksAndStopEndsThem) {
  SlurmLauncher launcher(options_);
  const GangSpec spec = new_gang("trap 'echo got it' USR1; for i in $(seq 300); do sleep 0.2; done");
  ASSERT_TRUE(launcher.start(spec));
  wait_for(launcher, GangState::kRunning);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  launcher.signal(spec.job, SIGUSR1, false);
  const auto has_it = [&] { return log(launcher, spec, 1).find("got it\n") != std::string::npos; };
  for (int i = 0; i < 100 && !has_it(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(has_it()) << log(launcher, spec, 1);
  end(launcher, spec);
}

TEST_F(SlurmCluster, ANewLauncherTakesTheGangOver) {
  const GangSpec spec = new_gang("echo start >> starts; sleep 4");
  {
    SlurmLauncher launcher(options_);
    ASSERT_TRUE(launcher.start(spec));
    wait_for(launcher, GangState::kRunning);
  }
  SlurmLauncher launcher(options_);
  ASSERT_TRUE(launcher.start(spec));
  wait_for(launcher, GangState::kSucceeded);
  EXPECT_EQ(read_file(options_.folder / spec.job / "starts").value(),
            "start\nstart\nstart\n");  // three ranks, once
  end(launcher, spec);
}

// Its node n4 is killed by who runs this test, once the file "up" is there.
TEST_F(SlurmCluster, ALostNodeIsSaidToBe) {
  if (env_or("TH_SLURM_KILLS").empty()) GTEST_SKIP() << "nobody kills a node";
  SlurmLauncher launcher(options_);
  GangSpec spec = new_gang("exec sleep 100");
  spec.ranks[1].node = "n4";
  ASSERT_TRUE(launcher.start(spec));
  wait_for(launcher, GangState::kRunning);
  ASSERT_TRUE(write_file_durable(options_.folder / "up", ""));
  const GangChanged failed = wait_for(launcher, GangState::kFailed, 90);
  ASSERT_TRUE(failed.cause);
  EXPECT_TRUE(failed.cause->lost);
  EXPECT_NE(failed.cause->report.reason.find("Slurm"), std::string::npos) << failed.cause->report.reason;
  end(launcher, spec);
}

TEST_F(SlurmCluster, ARefusalIsInSlurmsWords) {
  options_.queue_of = [](const GangSpec&) { return SlurmQueue{"nowhere", "lab", ""}; };
  SlurmLauncher launcher(options_);
  const GangSpec spec = new_gang("true");
  ASSERT_TRUE(launcher.start(spec));
  const GangChanged failed = wait_for(launcher, GangState::kFailed);
  EXPECT_NE(failed.cause->report.reason.find("Slurm refuses the job: Invalid partition"), std::string::npos)
      << failed.cause->report.reason;
  end(launcher, spec);
}

TEST_F(SlurmCluster, WrongCredentialsAreSaidToBe) {
  options_.token = "wrong";
  options_.submit_timeout_ns = kSecond;
  SlurmLauncher launcher(options_);
  const GangSpec spec = new_gang("true");
  ASSERT_TRUE(launcher.start(spec));
  const GangChanged failed = wait_for(launcher, GangState::kFailed);
  EXPECT_NE(failed.cause->report.reason.find("token of user root good"), std::string::npos)
      << failed.cause->report.reason;
}

TEST(SlurmLauncher, ASlurmThatIsDownIsSaidToBe) {
  SlurmLauncher launcher({.url = "http://127.0.0.1:1",
                          .user = "u",
                          .token = "t",
                          .folder = "/nowhere",
                          .poll_ns = kSecond / 20,
                          .submit_timeout_ns = kSecond / 10});
  GangSpec spec = gang({"true"});
  ASSERT_TRUE(launcher.start(spec));
  std::string reason;
  for (int i = 0; i < 200 && reason.empty(); ++i) {
    for (Event& event : launcher.take_events()) {
      if (auto* changed = std::get_if<GangChanged>(&event)) reason = changed->cause->report.reason;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_NE(reason.find("slurmrestd does not answer at http://127.0.0.1:1"), std::string::npos) << reason;
  spec.attempt = 3;
  EXPECT_EQ(launcher.start(spec).error().code, Code::kFailedPrecondition);
  spec.job = "other";
  spec.ranks[0].node = "n1;reboot";
  EXPECT_EQ(launcher.start(spec).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace th::launch
