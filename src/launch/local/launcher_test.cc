#include "launch/local/launcher.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace th::launch {
namespace {

using node::SyncRequest;
using node::TaskReport;
using node::TaskState;
using Lines = std::vector<std::string>;

/// Rank r on VM r.
GangSpec gang_of(int ranks, int attempt = 1) {
  GangSpec gang;
  gang.job = "job-1";
  gang.name = "demo";
  gang.attempt = attempt;
  gang.argv = {"true"};
  for (int r = 0; r < ranks; ++r) {
    RankPlace place;
    place.vm = place.node = fmt::format("vm-{}", r);
    place.address = "127.0.0.1";
    gang.ranks.push_back(place);
  }
  return gang;
}

TaskReport report_of(int rank, TaskState state, std::optional<int> exit_code = {},
                     std::optional<int> signal = {}) {
  TaskReport report;
  report.id = {"job-1", 1, rank};
  report.state = state;
  report.exit_code = exit_code;
  report.signal = signal;
  return report;
}

/// What a node says that acts on the newest list.
SyncRequest word(const LocalLauncher& launcher, std::string_view vm, std::vector<TaskReport> tasks) {
  SyncRequest request;
  request.boot_id = fmt::format("boot of {}", vm);
  request.have_generation = launcher.generation(vm);
  request.tasks = std::move(tasks);
  return request;
}

Lines told(LocalLauncher& launcher) {
  Lines lines;
  for (const Event& event : launcher.take_events()) {
    if (const auto* rank = std::get_if<RankChanged>(&event)) {
      lines.push_back(fmt::format("rank {} {}{}", rank->report.id.rank, node::state_name(rank->report.state),
                                  rank->lost ? " lost: " + rank->report.reason : ""));
    } else if (const auto* line = std::get_if<MetricsArrived>(&event)) {
      lines.push_back(fmt::format("line {} {}", line->line.line_no, line->line.line));
    } else if (const auto* gang = std::get_if<GangChanged>(&event)) {
      lines.push_back(
          fmt::format("{}.{} {}{}", gang->job, gang->attempt, state_name(gang->state),
                      gang->cause ? fmt::format(" by rank {}", gang->cause->report.id.rank) : ""));
    }
  }
  return lines;
}

TEST(LocalLauncher, AGangRunsAndSucceeds) {
  LocalLauncher launcher(1000);
  int64_t before = launcher.generation("vm-0");
  ASSERT_TRUE(launcher.start(gang_of(2)));
  EXPECT_GT(launcher.generation("vm-0"), before);
  ASSERT_EQ(launcher.desired("vm-1").tasks.size(), 1u);
  EXPECT_EQ(launcher.desired("vm-1").tasks[0].id.rank, 1);
  EXPECT_TRUE(launcher.desired("vm-2").tasks.empty());

  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 0 running"}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kRunning)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 1 running", "job-1.1 running"}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kRunning)}));
  EXPECT_EQ(told(launcher), Lines{}) << "the same word again";
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kExited, 0)}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kExited, 0)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 0 exited", "rank 1 exited", "job-1.1 succeeded"}));
}

TEST(LocalLauncher, AShortRankMayEndBeforeTheLastOneStarts) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(2)));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kExited, 0)}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kExited, 0)}));
  EXPECT_EQ(told(launcher),
            (Lines{"rank 0 exited", "rank 1 exited", "job-1.1 running", "job-1.1 succeeded"}));
}

TEST(LocalLauncher, TheFirstFailureIsTheCauseAndStopEndsTheRest) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(2)));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kRunning)}));
  told(launcher);
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kExited, {}, 9)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 1 exited", "job-1.1 failed by rank 1"}));
  EXPECT_EQ(launcher.start(gang_of(2, 2)).error().code, Code::kFailedPrecondition);

  SyncRequest old_word = word(launcher, "vm-1", {});
  launcher.stop("job-1");
  EXPECT_TRUE(launcher.desired("vm-0").tasks.empty());
  launcher.on_report("vm-1", old_word);
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  EXPECT_EQ(told(launcher), Lines{}) << "a word from before the stop proves nothing";
  launcher.on_report("vm-1", word(launcher, "vm-1", {}));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kExited, {}, 15)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 0 exited"}));
  launcher.on_report("vm-0", word(launcher, "vm-0", {}));
  EXPECT_EQ(told(launcher), (Lines{"job-1.1 gone"}));
  EXPECT_TRUE(launcher.start(gang_of(2, 2)));
}

TEST(LocalLauncher, AServiceIsReadyByItsUrlAndMayNotEnd) {
  LocalLauncher launcher(1000);
  GangSpec gang = gang_of(1);
  gang.service = true;
  gang.ready_url = "http://127.0.0.1:1/health";
  ASSERT_TRUE(launcher.start(gang));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kReady)}));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kExited, 0)}));
  EXPECT_EQ(told(launcher), (Lines{"rank 0 running", "job-1.1 running", "rank 0 ready", "job-1.1 ready",
                                   "rank 0 exited", "job-1.1 failed by rank 0"}));
}

TEST(LocalLauncher, ALostVmFailsItsGangAndCountsAsGone) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(2)));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  launcher.on_report("vm-1", word(launcher, "vm-1", {report_of(1, TaskState::kRunning)}));
  told(launcher);
  launcher.on_vm_lost("vm-1", "node vm-1 is down");
  EXPECT_EQ(told(launcher), (Lines{"rank 1 exited lost: node vm-1 is down", "job-1.1 failed by rank 1"}));
  launcher.stop("job-1");
  launcher.on_report("vm-0", word(launcher, "vm-0", {}));
  EXPECT_EQ(told(launcher), (Lines{"job-1.1 gone"}));
}

TEST(LocalLauncher, ANodeThatStartedAnewHasLostItsRanks) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(1)));
  launcher.on_report("vm-0", word(launcher, "vm-0", {report_of(0, TaskState::kRunning)}));
  told(launcher);
  SyncRequest anew = word(launcher, "vm-0", {});
  anew.boot_id = "another";
  launcher.on_report("vm-0", anew);
  EXPECT_EQ(told(launcher),
            (Lines{"rank 0 exited lost: the node of vm-0 started anew", "job-1.1 failed by rank 0"}));
  EXPECT_TRUE(launcher.desired("vm-0").tasks.size() == 0) << "it must not start alone";
}

SyncRequest with_lines(SyncRequest request, int64_t first, int64_t last) {
  for (int64_t n = first; n <= last; ++n) {
    node::MetricsLine line;
    line.id = {"job-1", 1, 0};
    line.line_no = n;
    line.line = "{}";
    request.metrics.push_back(line);
  }
  return request;
}

TEST(LocalLauncher, MetricsLinesComeOnceAndAreAckedOnceStored) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(1)));
  launcher.on_report("vm-0", with_lines(word(launcher, "vm-0", {}), 1, 2));
  launcher.on_report("vm-0", with_lines(word(launcher, "vm-0", {}), 1, 3));
  EXPECT_EQ(told(launcher), (Lines{"line 1 {}", "line 2 {}", "line 3 {}"}));
  EXPECT_TRUE(launcher.desired("vm-0").ack_metrics.empty());
  launcher.ack_metrics({"job-1", 1, 0}, 3);
  EXPECT_EQ(launcher.desired("vm-0").ack_metrics, (std::map<std::string, int64_t>{{"job-1.1.0", 3}}));
}

TEST(LocalLauncher, RefusedMetricsComeAgainAndOthersRanksAreNotBelieved) {
  LocalLauncher launcher(1000);
  ASSERT_TRUE(launcher.start(gang_of(2)));
  EXPECT_FALSE(launcher.heard("vm-0"));
  const SyncRequest request = with_lines(word(launcher, "vm-0", {}), 1, 3);
  launcher.on_report("vm-0", request);
  EXPECT_TRUE(launcher.heard("vm-0"));
  EXPECT_EQ(told(launcher).size(), 3u);
  launcher.ack_metrics({"job-1", 1, 0}, 1);
  launcher.refuse_metrics({"job-1", 1, 0});
  launcher.on_report("vm-0", request);
  EXPECT_EQ(told(launcher), (Lines{"line 2 {}", "line 3 {}"}));
  launcher.on_report("vm-1", with_lines(word(launcher, "vm-1", {}), 4, 4));
  EXPECT_EQ(told(launcher), Lines{}) << "rank 0 does not run there";
}

TEST(LocalLauncher, AfterARestartTheRanksAreFoundAndNoLineIsDoubled) {
  LocalLauncher before(1000);
  ASSERT_TRUE(before.start(gang_of(1)));
  LocalLauncher after(2000);
  after.restore_metrics({"job-1", 1, 0}, 2);
  ASSERT_TRUE(after.start(gang_of(1)));
  EXPECT_GT(after.generation("vm-0"), before.generation("vm-0"));
  EXPECT_EQ(after.desired("vm-0").tasks, before.desired("vm-0").tasks);
  SyncRequest request = with_lines(word(before, "vm-0", {report_of(0, TaskState::kRunning)}), 1, 3);
  after.on_report("vm-0", request);
  EXPECT_EQ(told(after), (Lines{"line 3 {}", "rank 0 running", "job-1.1 running"}));
}

TEST(LocalLauncher, RefusesGangsThatCannotStart) {
  LocalLauncher launcher(1000);
  GangSpec gang = gang_of(1);
  gang.argv.clear();
  EXPECT_EQ(launcher.start(gang).error().message, "job job-1: has no command");
  EXPECT_EQ(launcher.start(gang_of(0)).error().message, "job job-1: has no ranks");
  EXPECT_TRUE(launcher.start(gang_of(1)));
  EXPECT_TRUE(launcher.start(gang_of(1))) << "the same again is harmless";
  EXPECT_EQ(launcher.desired("vm-0").tasks.size(), 1u);
}

}  // namespace
}  // namespace th::launch
