#include "node/protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace th::node {
namespace {

Task full_task() {
  Task task;
  task.id = {"job-1", 2, 3};
  task.argv = {"th-train", "run", "recipe.yaml"};
  task.env = {{"RANK", "3"}};
  task.cwd = "/srv/code";
  task.files = {{"recipe.yaml", "steps: 1\n"}};
  task.stage = {{"data/x.txt", "/data/x.txt"}};
  task.gpus = {0, 1};
  task.memory_bytes = 1 << 20;
  task.grace_ms = 1500;
  task.signal = 10, task.signal_leader_only = true;
  task.metrics_file = "metrics.jsonl";
  task.ready_url = "http://127.0.0.1:9/health";
  return task;
}

std::string error_of_reply(const std::string& text) {
  auto reply = sync_reply_from_json(parse_json(text, "test").value());
  return reply ? "accepted" : reply.error().message;
}

/// A reply whose only task is full_task() with one field replaced.
std::string error_of_task(const char* field, Json value) {
  Json task = to_json(full_task());
  task[field] = std::move(value);
  Json reply = {{"generation", 1}, {"tasks", Json::array({task})}};
  return error_of_reply(dump_json(reply));
}

TEST(TaskId, ReadsTheLastTwoNumbers) {
  EXPECT_EQ(parse_task_id("job-1.2.3").value(), (TaskId{"job-1", 2, 3}));
  EXPECT_EQ(parse_task_id("my.job.1.0").value(), (TaskId{"my.job", 1, 0}));
  EXPECT_EQ((TaskId{"job-1", 2, 3}.text()), "job-1.2.3");
  for (const char* bad : {"", ".", "job", "job.1", "job.0.1", "job.1.-1", "job.01.1", "job.1.1x", ".1.1",
                          "../x.1.1", "job.1.99999999999"}) {
    EXPECT_FALSE(parse_task_id(bad)) << bad;
  }
}

TEST(Protocol, FieldNamesAreThoseOfTheContract) {
  EXPECT_EQ(
      dump_json(to_json(full_task())),
      R"({"task":"job-1.2.3","job":"job-1","attempt":2,"rank":3,"argv":["th-train","run","recipe.yaml"],)"
      R"("env":{"RANK":"3"},"cwd":"/srv/code","files":{"recipe.yaml":"steps: 1\n"},)"
      R"("stage":{"data/x.txt":"/data/x.txt"},"gpus":[0,1],"memory_bytes":1048576,"grace_ms":1500,)"
      R"("signal":10,"signal_leader_only":true,"metrics_file":"metrics.jsonl","ready_url":"http://127.0.0.1:9/health"})");
}

TEST(Protocol, RepliesSurviveTheWire) {
  SyncReply reply{
      9, {full_task()}, {{"job-1.2.3", 17}}, {{"exec-a0", {"job-1", 2, 3}, {"ls", "-l"}, true, 50, 132}}};
  reply.tasks.push_back(full_task());
  reply.tasks[1].id.rank = 0;
  reply.tasks[1].cwd.reset();
  reply.tasks[1].metrics_file.reset();
  reply.tasks[1].ready_url.reset();
  EXPECT_EQ(sync_reply_from_json(parse_json(dump_json(to_json(reply)), "reply").value()).value(), reply);
}

TEST(Protocol, SessionsAreChecked) {
  const Json good = to_json(SessionSpec{"exec-a0", {"job-1", 1, 0}, {"ls"}, false, 24, 80});
  EXPECT_TRUE(session_from_json(good));
  for (const auto& [field, wrong] : std::multimap<std::string, Json>{{"session", "../x"},
                                                                     {"task", "job"},
                                                                     {"argv", Json{""}},
                                                                     {"argv", Json{1}},
                                                                     {"argv", Json{std::string("a\0b", 3)}},
                                                                     {"rows", 0},
                                                                     {"columns", 5000}}) {
    Json bad = good;
    bad[field] = wrong;
    EXPECT_FALSE(session_from_json(bad)) << field << " " << wrong;
  }
}

TEST(Protocol, RequestsSurviveTheWire) {
  SyncRequest request;
  request.boot_id = "boot";
  request.have_generation = 4;
  request.validation = Validation{false, {{"cpus", false, "1", "at least 2"}}};
  request.address = "127.0.0.1";
  TaskReport killed;
  killed.id = {"job-1", 1, 0};
  killed.state = TaskState::kExited;
  killed.pid = 77;
  killed.signal = 9;
  killed.reason = "killed by SIGKILL";
  killed.started_ns = 5;
  killed.ended_ns = 6;
  request.tasks.push_back(killed);
  MetricsLine line;
  line.id = {"job-1", 1, 0};
  line.line_no = 1;
  line.line = R"({"event":"progress","loss":5.25})";
  request.metrics.push_back(line);
  EXPECT_EQ(sync_request_from_json(parse_json(dump_json(to_json(request)), "request").value()).value(),
            request);
}

TEST(Protocol, RefusesWhatCouldHarm) {
  EXPECT_EQ(error_of_task("rank", 3), "accepted");
  EXPECT_EQ(error_of_task("files", {{"../x", "y"}}),
            "task job-1.2.3: field 'files': path '../x' has a part '.' or '..'; want a relative path inside "
            "the job's "
            "folder");
  EXPECT_NE(error_of_task("files", {{"/etc/passwd", "y"}}), "accepted");
  EXPECT_NE(error_of_task("stage", {{"a//b", "/x"}}), "accepted");
  EXPECT_NE(error_of_task("stage", {{"a", "relative"}}), "accepted");
  EXPECT_NE(error_of_task("metrics_file", "../metrics"), "accepted");
  EXPECT_NE(error_of_task("cwd", "relative"), "accepted");
  EXPECT_NE(error_of_task("argv", Json::array()), "accepted");
  EXPECT_NE(error_of_task("argv", Json::array({1})), "accepted");
  EXPECT_NE(error_of_task("env", {{"A=B", "c"}}), "accepted");
  EXPECT_NE(error_of_task("env", {{"A", 1}}), "accepted");
  EXPECT_NE(error_of_task("gpus", Json::array({-1})), "accepted");
  EXPECT_NE(error_of_task("memory_bytes", -1), "accepted");
  EXPECT_NE(error_of_task("grace_ms", 86'400'000), "accepted");
  EXPECT_NE(error_of_task("ready_url", "file:///etc/passwd"), "accepted");
  EXPECT_NE(error_of_task("task", "job"), "accepted");
}

TEST(Protocol, AReplyWithoutTasksIsNotAnEmptyList) {
  EXPECT_EQ(error_of_reply(R"({"generation":1})"), "field 'tasks': want a list");
  EXPECT_EQ(error_of_reply(R"({"generation":1,"tasks":null})"), "field 'tasks': want a list");
  EXPECT_EQ(error_of_reply(R"({"generation":1,"tasks":[]})"), "accepted");
  EXPECT_NE(error_of_reply(R"({"tasks":[]})"), "accepted");
  EXPECT_NE(error_of_reply(R"([])"), "accepted");
}

TEST(Protocol, ATaskTwiceIsRefused) {
  Json reply = {{"generation", 1}, {"tasks", Json::array({to_json(full_task()), to_json(full_task())})}};
  EXPECT_EQ(error_of_reply(dump_json(reply)), "field 'tasks': job-1.2.3 stands twice");
}

}  // namespace
}  // namespace th::node
