// th-node as a process, against a controller that does what the test says.
#include "node/node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/process.h"
#include "http/server.h"
#include "node/protocol.h"

namespace th::node {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

template <class Condition>
bool eventually(Condition condition, int seconds = 20) {
  for (int i = 0; i < seconds * 100; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// Hands out the list that the test sets and remembers what it was told, with the semantics of
/// docs/protocols.md.
class Controller {
 public:
  void start() {
    http::Router router;
    router.add("GET", "/health", [](http::Request, http::Responder responder) {
      responder.send(Json{{"status", "ok"}});
    });
    router.add("POST", "/api/v1/node/vm-1/sync",
               [this](http::Request request, http::Responder responder) { on_sync(request, responder); });
    router.add("POST", "/api/v1/node/vm-1/log",
               [this](http::Request request, http::Responder responder) { on_log(request, responder); });
    http::ServerOptions options;
    options.port = port_;
    server_ = http::Server::start(options, std::move(router)).value();
    port_ = server_->port();
  }
  /// Away: connections are dropped. start() comes back on the same port.
  void stop() {
    server_.reset();
    std::scoped_lock lock(mutex_);
    waiting_.reset();
  }
  uint16_t port() const { return port_; }

  void want(std::vector<Task> tasks) {
    std::scoped_lock lock(mutex_);
    tasks_ = std::move(tasks);
    ++generation_;
    answer_waiting();
  }
  void dismiss() {
    std::scoped_lock lock(mutex_);
    dismissed_ = true;
    answer_waiting();
  }
  std::optional<TaskReport> report(const std::string& task) {
    std::scoped_lock lock(mutex_);
    for (const TaskReport& report : last_.tasks) {
      if (report.id.text() == task) return report;
    }
    return std::nullopt;
  }
  SyncRequest last() {
    std::scoped_lock lock(mutex_);
    return last_;
  }
  std::string log(const std::string& task) {
    std::scoped_lock lock(mutex_);
    return logs_[task];
  }
  std::vector<MetricsLine> metrics() {
    std::scoped_lock lock(mutex_);
    return metrics_;
  }
  int refused() {
    std::scoped_lock lock(mutex_);
    return refused_;
  }
  int syncs() {
    std::scoped_lock lock(mutex_);
    return syncs_;
  }

 private:
  bool knows(const http::Request& request, const http::Responder& responder) {
    if (!dismissed_ && request.bearer() == "secret") return true;
    ++refused_;
    responder.fail({Code::kUnauthenticated, "unknown node"});
    return false;
  }
  void answer_waiting() {
    if (!waiting_) return;
    if (dismissed_) {
      waiting_->fail({Code::kUnauthenticated, "unknown node"});
    } else {
      waiting_->send(to_json(reply()));
    }
    waiting_.reset();
  }
  SyncReply reply() { return {generation_, tasks_, stored_, {}}; }
  void on_sync(const http::Request& request, const http::Responder& responder) {
    std::scoped_lock lock(mutex_);
    if (!knows(request, responder)) return;
    auto said = sync_request_from_json(parse_json(request.body, "sync").value());
    ASSERT_TRUE(said) << said.error().message;
    ++syncs_;
    last_ = *said;
    for (const MetricsLine& line : said->metrics) {
      int64_t& stored = stored_[line.id.text()];
      if (line.line_no > stored) metrics_.push_back(line);
      stored = std::max(stored, line.line_no);
    }
    waiting_ = responder;
    if (generation_ != said->have_generation || request.query.at("wait_ms") == "0") answer_waiting();
  }
  void on_log(const http::Request& request, const http::Responder& responder) {
    std::scoped_lock lock(mutex_);
    if (!knows(request, responder)) return;
    std::string& log = logs_[request.query.at("task")];
    if (std::stoul(request.query.at("offset")) == log.size()) log += request.body;
    responder.send(Json{{"next_offset", log.size()}});
  }

  uint16_t port_ = 0;
  std::unique_ptr<http::Server> server_;
  std::mutex mutex_;
  bool dismissed_ = false;
  int64_t generation_ = 1;
  int syncs_ = 0;
  int refused_ = 0;
  std::vector<Task> tasks_;
  SyncRequest last_;
  std::optional<http::Responder> waiting_;
  std::map<std::string, std::string> logs_;
  std::map<std::string, int64_t> stored_;
  std::vector<MetricsLine> metrics_;
};

Task script(int rank, const std::string& text) {
  Task task;
  task.id = {"job-1", 1, rank};
  task.argv = {"sh", "-c", text};
  task.grace_ms = 500;
  return task;
}

class NodeTest : public testing::Test {
 protected:
  NodeTest() {
    std::string pattern = fs::path(testing::TempDir()) / "node-XXXXXX";
    state_ = mkdtemp(pattern.data());
    chmod(state_.c_str(), 0711);
    fs::create_directories(state_ / "vms/vm-1");
    fs::create_directories(state_ / "jobs");
    controller_.start();
  }
  ~NodeTest() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    while (kill_leftovers(0, "TH_VM_DIR=" + (state_ / "vms/vm-1").string()) > 0) continue;
    if (auto cgroup = read_file(state_ / "vms/vm-1/cgroup")) {
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(*cgroup, ignored)) rmdir(entry.path().c_str());
      rmdir(cgroup->c_str());
    }
    fs::remove_all(state_);
  }

  void start_node(Json expect = {{"gpus", 2}}) {
    Json config = {{"name", "vm-1"},
                   {"host", "host-1"},
                   {"vm", "vm-1"},
                   {"controller", fmt::format("http://127.0.0.1:{}", controller_.port())},
                   {"token", "secret"},
                   {"dir", (state_ / "vms/vm-1").string()},
                   {"jobs_dir", (state_ / "jobs").string()},
                   {"gpus", 2},
                   {"run_as", "nobody"},
                   {"expect", expect}};
    fs::path file = state_ / "vms/vm-1/node.json";
    ASSERT_TRUE(write_file_durable(file, config.dump(), 0600));
    pid_ = fork();
    if (pid_ == 0) {
      int log = open((state_ / "vms/vm-1/node.log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      dup2(log, 1);
      dup2(log, 2);
      execl(TH_BUILD_DIR "/th-node", "th-node", "--config", file.c_str(), nullptr);
      _exit(127);
    }
  }
  /// Waits until the controller was told that the task exited.
  TaskReport exit_of(const std::string& task) {
    bool exited = eventually([&] {
      auto report = controller_.report(task);
      return report && report->state == TaskState::kExited;
    });
    EXPECT_TRUE(exited) << task << "\n" << read_file(state_ / "vms/vm-1/node.log").value_or("");
    return controller_.report(task).value_or(TaskReport());
  }
  pid_t running(const std::string& task, TaskState state = TaskState::kRunning) {
    bool runs = eventually([&] {
      auto report = controller_.report(task);
      return report && report->state == state;
    });
    EXPECT_TRUE(runs) << task << "\n" << read_file(state_ / "vms/vm-1/node.log").value_or("");
    return runs ? static_cast<pid_t>(controller_.report(task)->pid) : 0;
  }
  int wait_for_node() {
    int status = -1;
    EXPECT_TRUE(eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }));
    pid_ = 0;
    return status;
  }
  static bool is_root() { return geteuid() == 0; }

  fs::path state_;
  Controller controller_;
  pid_t pid_ = 0;
};

TEST_F(NodeTest, ValidatesItselfBeforeItIsHandedOver) {
  start_node({{"gpus", 2}, {"cpus", 1}, {"memory_bytes", 1 << 20}, {"programs", {"sh"}}});
  ASSERT_TRUE(eventually([&] { return controller_.last().validation.has_value(); }));
  auto checks = controller_.last().validation->checks;
  for (const Check& check : checks) {
    EXPECT_TRUE(check.ok) << check.name << ": " << check.value << ", want " << check.want;
  }
  EXPECT_TRUE(controller_.last().validation->ok);
  EXPECT_EQ(controller_.last().address, "127.0.0.1");
}

TEST_F(NodeTest, SaysWhichCheckFails) {
  start_node(
      {{"gpus", 8}, {"cpus", 100'000}, {"disk_free_bytes", int64_t{1} << 60}, {"programs", {"no-such-x"}}});
  ASSERT_TRUE(eventually([&] { return controller_.last().validation.has_value(); }));
  auto checks = controller_.last().validation->checks;
  std::map<std::string, bool> ok;
  for (const Check& check : checks) ok[check.name] = check.ok;
  EXPECT_FALSE(controller_.last().validation->ok);
  EXPECT_FALSE(ok["gpus"] || ok["cpus"] || ok["disk"] || ok["programs"]);
  EXPECT_TRUE(ok["memory"] && ok["clock"]);
}

TEST_F(NodeTest, TellsExitCodesFromSignalsAndKeepsTheLogs) {
  start_node();
  controller_.want(
      {script(0, "echo out; echo err >&2; exit 3"), script(1, "kill -SEGV $$"), script(2, "exit 0")});
  TaskReport exited = exit_of("job-1.1.0"), killed = exit_of("job-1.1.1"), done = exit_of("job-1.1.2");
  EXPECT_EQ(exited.exit_code, 3);
  EXPECT_EQ(exited.signal, std::nullopt);
  EXPECT_EQ(exited.reason, "exited with code 3");
  EXPECT_EQ(killed.signal, SIGSEGV);
  EXPECT_EQ(killed.exit_code, std::nullopt);
  EXPECT_EQ(killed.reason, "killed by SIGSEGV");
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_GE(done.ended_ns, done.started_ns);
  EXPECT_EQ(controller_.log("job-1.1.0"), "out\nerr\n") << "the log comes before the exit";
}

TEST_F(NodeTest, AKilledRankIsToldByItsSignal) {
  start_node();
  controller_.want({script(0, "exec sleep 300"), script(1, "exec sleep 300")});
  pid_t pid = running("job-1.1.0");
  pid_t other = running("job-1.1.1");
  kill(pid, SIGKILL);
  EXPECT_EQ(exit_of("job-1.1.0").signal, SIGKILL);
  EXPECT_TRUE(find_process(other)) << "only the controller decides about the others";
}

TEST_F(NodeTest, StopsWhatIsNotWantedAnyMoreWithItsWholeGroup) {
  start_node();
  controller_.want({script(0, "trap 'echo bye; exit 0' TERM; sleep 301 & echo $!; wait"),
                    script(1, "trap '' TERM; setsid sleep 302 & echo $!; while true; do sleep 1; done")});
  pid_t polite = running("job-1.1.0"), deaf = running("job-1.1.1");
  ASSERT_TRUE(eventually(
      [&] { return !controller_.log("job-1.1.0").empty() && !controller_.log("job-1.1.1").empty(); }));
  pid_t child = std::stoi(controller_.log("job-1.1.0")), runaway = std::stoi(controller_.log("job-1.1.1"));
  EXPECT_TRUE(find_process(child) && find_process(runaway));
  controller_.want({});
  EXPECT_TRUE(
      eventually([&] { return !controller_.report("job-1.1.0") && !controller_.report("job-1.1.1"); }));
  EXPECT_THAT(controller_.log("job-1.1.0"), HasSubstr("bye\n"));
  // Orphans are killed by then, but it is init that takes them away.
  for (pid_t pid : {polite, deaf, child, runaway})
    EXPECT_TRUE(eventually([&] { return !find_process(pid); })) << pid;
}

TEST_F(NodeTest, ATaskIsStartedOnce) {
  start_node();
  controller_.want({script(0, "echo started >> count; exit 0")});
  exit_of("job-1.1.0");
  controller_.want({script(0, "echo started >> count; exit 0"), script(1, "exit 0")});
  exit_of("job-1.1.1");
  EXPECT_EQ(read_file(state_ / "jobs/job-1/count").value(), "started\n");
}

TEST_F(NodeTest, StagesOnceAndGivesTheFolderToTheUserOfTheJob) {
  std::string secret = state_ / "secret", data = state_ / "data";
  ASSERT_TRUE(write_file_durable(secret, "x", 0600));
  fs::create_directories(fs::path(data) / "deep");
  ASSERT_TRUE(write_file_durable(fs::path(data) / "deep/text", "hello"));
  start_node();
  Task task =
      script(0, "cat recipe.yaml data/deep/text && echo more >> recipe.yaml && pwd && echo $TH_JOB_DIR");
  task.files = {{"recipe.yaml", "steps: 1\n"}};
  task.stage = {{"data", data}};
  Task stolen = script(0, "cat secret");
  stolen.id.job = "job-2";
  stolen.stage = {{"secret", secret}};
  Task missing = stolen;
  missing.id.job = "job-3";
  missing.stage = {{"x", "/no/such/file"}};
  controller_.want({task, stolen, missing});
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 0);
  std::string folder = state_ / "jobs/job-1";
  EXPECT_EQ(controller_.log("job-1.1.0"), "steps: 1\nhello" + folder + "\n" + folder + "\n");
  EXPECT_EQ(exit_of("job-3.1.0").reason, "staging /no/such/file: No such file or directory");
  if (!is_root()) GTEST_SKIP() << "not root: staged files are read as this user anyway";
  EXPECT_EQ(exit_of("job-2.1.0").reason,
            fmt::format("staging {}: user 'nobody' may not read it; allow it by chmod", secret));
  struct stat info {};
  ASSERT_EQ(stat((folder + "/recipe.yaml").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, getpwnam("nobody")->pw_uid);
}

TEST_F(NodeTest, LinksInTheJobsFolderAreNotFollowed) {
  start_node();
  controller_.want({script(0, "ln -s /etc out; ln -s ../../vms metrics.jsonl")});
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 0);
  Task staged = script(0, "true"), metrics = script(1, "true");
  staged.id.attempt = 2;
  staged.files = {{"out/th-test", "x"}};
  controller_.want({staged});
  EXPECT_EQ(exit_of("job-1.2.0").reason,
            "'out' in the job's folder is a link or not a plain file; remove it");
  EXPECT_FALSE(fs::exists("/etc/th-test"));
  metrics.id.attempt = 3;
  metrics.metrics_file = "metrics.jsonl";
  controller_.want({metrics});
  EXPECT_THAT(exit_of("job-1.3.1").reason, HasSubstr("is a link"));
}

TEST_F(NodeTest, RanksAreUnprivilegedAndSeeOnlyTheirEnvironment) {
  if (!is_root()) GTEST_SKIP() << "not root";
  setenv("TH_KEY", "must not leak", 1);
  start_node();
  unsetenv("TH_KEY");
  Task task =
      script(0, "id -u; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; echo $RANK.$TH_KEY.");
  task.env = {{"RANK", "7"}};
  controller_.want({task});
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 0);
  // ls itself opens the folder: 0, 1, 2 and that one.
  EXPECT_EQ(controller_.log("job-1.1.0"),
            fmt::format("{}\nNoNewPrivs:\t1\n4\n7..\n", getpwnam("nobody")->pw_uid));
}

TEST_F(NodeTest, WorksInFoldersThatTheUserCannotReach) {
  chmod(state_.c_str(), 0700);
  fs::create_directories(state_ / "checkout");
  ASSERT_TRUE(write_file_durable(state_ / "checkout/code", "code\n"));
  start_node();
  Task task = script(0, "cat code; echo '{}' > $TH_METRICS; echo made > $TH_JOB_DIR/made");
  task.cwd = state_ / "checkout";
  task.metrics_file = "metrics.jsonl";
  controller_.want({task});
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 0) << controller_.log("job-1.1.0");
  EXPECT_EQ(controller_.log("job-1.1.0"), "code\n");
  EXPECT_EQ(read_file(state_ / "jobs/job-1/made").value(), "made\n");
}

TEST_F(NodeTest, ProgramsBesideItRunWhateverTheFolder) {
  start_node();
  Task task = script(0, "");
  task.argv = {"th-node", "--version"};
  Task nowhere = script(1, "");
  nowhere.argv = {"no-such-program"};
  controller_.want({task, nowhere});
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 0) << controller_.log("job-1.1.0");
  EXPECT_THAT(exit_of("job-1.1.1").reason, StartsWith("program 'no-such-program' is neither"));
  EXPECT_EQ(controller_.report("job-1.1.1")->exit_code, std::nullopt);
}

TEST_F(NodeTest, TheMemoryLimitHolds) {
  start_node();
  // 256 MiB in python under a limit of 64 MiB: killed where a cgroup limits, else the allocation fails.
  Task task = script(0, "");
  task.argv = {"python3", "-c", "x = bytearray(256 << 20); print('allocated')"};
  task.memory_bytes = 64 << 20;
  Task fits = task;
  fits.id.rank = 1;
  fits.memory_bytes = 1 << 30;
  controller_.want({task, fits});
  TaskReport over = exit_of("job-1.1.0");
  EXPECT_NE(over.exit_code, 0);
  EXPECT_EQ(controller_.log("job-1.1.0").find("allocated"), std::string::npos);
  if (over.signal) {
    EXPECT_THAT(over.reason, StartsWith("killed by SIGKILL: out of memory, its limit is 64"));
  }
  TaskReport under = exit_of("job-1.1.1");
  EXPECT_EQ(under.exit_code, 0) << under.reason;
}

TEST_F(NodeTest, MetricsLinesComeOnceAndInOrderOverAnOutage) {
  start_node();
  Task task = script(0,
                     "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo \"{\\\"step\\\":$i}\" >> metrics.jsonl; "
                     "echo line $i; sleep 0.02; done; echo nonsense >> metrics.jsonl; exit 5");
  task.metrics_file = "metrics.jsonl";
  controller_.want({task});
  ASSERT_TRUE(eventually([&] { return controller_.metrics().size() >= 5; }));
  controller_.stop();
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  controller_.start();
  EXPECT_EQ(exit_of("job-1.1.0").exit_code, 5);
  auto metrics = controller_.metrics();
  ASSERT_EQ(metrics.size(), 60u);
  std::string log;
  for (int i = 1; i <= 60; ++i) {
    EXPECT_EQ(metrics[i - 1].line, fmt::format("{{\"step\":{}}}", i));
    EXPECT_EQ(metrics[i - 1].line_no, i);
    log += fmt::format("line {}\n", i);
  }
  EXPECT_EQ(controller_.log("job-1.1.0"), log);
}

TEST_F(NodeTest, AnExitIsToldAfterAllMetricsHoweverManyWaited) {
  start_node();
  std::vector<Task> tasks;
  for (int rank : {0, 1}) {  // together more lines than one report carries
    const std::string file = fmt::format("m{}.jsonl", rank);
    tasks.push_back(script(rank,
                           "touch go; while [ -e go ]; do sleep 0.01; done; for i in $(seq 200); do "
                           "echo \"{\\\"step\\\":$i}\"; done >> " +
                               file));
    tasks.back().metrics_file = file;
  }
  controller_.want(tasks);
  running("job-1.1.0"), running("job-1.1.1");
  ASSERT_TRUE(eventually([&] { return fs::exists(state_ / "jobs/job-1/go"); }));
  controller_.stop();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  fs::remove(state_ / "jobs/job-1/go");
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  controller_.start();
  exit_of("job-1.1.0"), exit_of("job-1.1.1");
  controller_.want({});
  EXPECT_EQ(controller_.metrics().size(), 400u);
}

TEST_F(NodeTest, TheNextAttemptsMetricsDoNotRepeatTheLast) {
  start_node();
  Task first = script(0, "printf '{\"a\":1}\\n{\"torn' >> metrics.jsonl");
  first.metrics_file = "metrics.jsonl";
  controller_.want({first});
  exit_of("job-1.1.0");
  Task second = script(0, "echo '{\"a\":2}' >> metrics.jsonl");
  second.id.attempt = 2;
  second.metrics_file = "metrics.jsonl";
  controller_.want({second});
  exit_of("job-1.2.0");
  EXPECT_EQ(read_file(state_ / "jobs/job-1/metrics.jsonl").value(), "{\"a\":1}\n{\"torn\n{\"a\":2}\n");
  auto metrics = controller_.metrics();
  ASSERT_EQ(metrics.size(), 2u);
  EXPECT_EQ(metrics[0].line, "{\"a\":1}");
  EXPECT_EQ(metrics[1].line, "{\"a\":2}");
  EXPECT_EQ(metrics[1].id.attempt, 2);
  EXPECT_EQ(metrics[1].line_no, 1);
}

TEST_F(NodeTest, ReadyOnceTheUrlAnswers) {
  start_node();
  http::Router router;
  std::atomic<bool> loaded = false;
  router.add("GET", "/health", [&](http::Request, http::Responder responder) {
    responder.send(Json::object(), loaded ? 200 : 503);
  });
  auto server = http::Server::start({}, std::move(router)).value();
  Task task = script(0, "exec sleep 300");
  task.ready_url = fmt::format("http://127.0.0.1:{}/health", server->port());
  controller_.want({task});
  running("job-1.1.0");
  loaded = true;
  running("job-1.1.0", TaskState::kReady);
}

TEST_F(NodeTest, RanksDieWithAKilledNode) {
  start_node();
  controller_.want({script(0, "exec sleep 300"), script(1, "exec sleep 300")});
  pid_t first = running("job-1.1.0"), second = running("job-1.1.1");
  kill(pid_, SIGKILL);
  wait_for_node();
  EXPECT_TRUE(eventually([&] { return !find_process(first) && !find_process(second); }));
}

TEST_F(NodeTest, SigtermStopsTheRanksAndLeavesNothing) {
  start_node();
  Task task = script(0, "trap 'echo bye; exit 0' TERM; sleep 300 & wait");
  task.memory_bytes = 1 << 30;
  controller_.want({task});
  pid_t rank = running("job-1.1.0");
  std::string cgroup = read_file(state_ / "vms/vm-1/cgroup").value_or("");
  kill(pid_, SIGTERM);
  EXPECT_EQ(wait_for_node(), 0);
  EXPECT_FALSE(find_process(rank));
  EXPECT_EQ(controller_.log("job-1.1.0"), "bye\n") << "the last words are handed over";
  EXPECT_TRUE(cgroup.empty() || !fs::exists(cgroup));
  EXPECT_TRUE(fs::is_empty(state_ / "vms/vm-1/logs"));
}

TEST_F(NodeTest, EndsWhenTheControllerDoesNotKnowIt) {
  start_node();
  controller_.want({script(0, "exec sleep 300")});
  pid_t rank = running("job-1.1.0");
  controller_.dismiss();
  EXPECT_EQ(wait_for_node(), 0);
  EXPECT_FALSE(find_process(rank));
}

TEST_F(NodeTest, SaysNothingMoreOnceItIsDismissed) {
  start_node();
  controller_.want({script(0, "trap '' TERM; echo up; while true; do sleep 0.1; done")});
  ASSERT_TRUE(eventually([&] { return !controller_.log("job-1.1.0").empty(); }));
  controller_.dismiss();
  auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(wait_for_node(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2)) << "the grace and no farewell";
  EXPECT_LE(controller_.refused(), 2) << "no storm of calls while its ranks end";
}

TEST_F(NodeTest, AnIdleNodeIsQuiet) {
  start_node();
  controller_.want({script(0, "exec sleep 300")});
  running("job-1.1.0");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  int before = controller_.syncs();
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  EXPECT_LE(controller_.syncs(), before + 1) << "one long poll waits";
}

}  // namespace
}  // namespace th::node
