#include <gtest/gtest.h>

#include "base/units.h"
#include "ledger/state.h"

namespace th::ledger {
namespace {

struct Log {
  State state;
  void at(int64_t time_ns, Event event) {
    const Status done = apply(state, {state.seq + 1, time_ns, std::move(event)});
    ASSERT_TRUE(done) << done.error().message;
  }
  const Slice& slice() const { return state.slices.at("slice-1"); }
};

/// A slice of one host of that many GPUs at $2 a GPU-hour, ready from time 0 to `end_ns`.
Log ready(int64_t gpus, int64_t end_ns) {
  Log log;
  SliceHeld held;
  held.slice = held.name = "slice-1", held.gpus = gpus, held.end_ns = end_ns,
  held.microusd_per_gpu_hour = 2'000'000;
  held.hosts = {{"h0", "r", "l", gpus}};
  log.at(0, held), log.at(0, SliceOwned{"slice-1", "lab", "key-1", "normal", "", false});
  log.at(0, SliceCommitted{"slice-1", ""}), log.at(0, VmRequested{"vm-0", "slice-1", "h0", gpus});
  log.at(0, NodeValidated{"vm-0", "b", ""}), log.at(0, SliceReady{"slice-1", ""});
  return log;
}

TEST(Tenants, AWholeFleetForAMonthIsMeteredToTheCent) {
  // 131,072 GPUs for 30 days are 94,371,840 GPU-hours, 3.4e20 ns, which 64 bits do not hold: $188,743,680.
  Log log = ready(131'072, 30 * kDay);
  log.at(30 * kDay, SliceReleasing{"slice-1", ""});
  EXPECT_EQ(log.slice().cost_microusd_at(30 * kDay), int64_t{188'743'680} * 1'000'000);
}

TEST(Tenants, NothingIsPaidAfterTheWindow) {
  Log log = ready(2, kHour);
  log.at(3 * kHour, SliceReleasing{"slice-1", "the controller was away"});
  EXPECT_EQ(log.slice().cost_microusd_at(4 * kHour), 4'000'000);
}

TEST(Tenants, EachHourHasWhatRanInIt) {
  // Two GPUs at $2 from 0:00 to 1:30 and from 2:15 to 3:00: 2, 1 and 1.5 GPU-hours.
  Log away = ready(2, 10 * kHour);
  away.at(3 * kHour / 2, NodeDown{"vm-0", "a fan"});
  away.at(9 * kHour / 4, NodeValidated{"vm-0", "b2", ""});
  UsageHours running = away.state.hours;
  add_run(running, away.slice(), 3 * kHour);
  away.at(3 * kHour, SliceReleasing{"slice-1", ""});
  const UsageHours& hours = away.state.hours;
  ASSERT_EQ(hours.size(), 3u);
  const std::map<int64_t, std::pair<int64_t, int64_t>> want = {
      {0, {7200, 4'000'000}}, {1, {3600, 2'000'000}}, {2, {5400, 3'000'000}}};
  int64_t microusd = 0;
  for (const auto& [hour, used] : want) {
    const HourUsage& got = hours.at({hour * kHour, "lab"});
    EXPECT_EQ(static_cast<int64_t>(got.gpu_ns / kSecond), used.first) << hour;
    EXPECT_EQ(got.microusd(), used.second) << hour;
    EXPECT_EQ(running.at({hour * kHour, "lab"}).microusd(), used.second) << "told while it runs, as later";
    microusd += got.microusd();
  }
  EXPECT_EQ(away.slice().cost_microusd_at(3 * kHour), microusd);
}

TEST(Tenants, HoursHaveTheTokensThatWereReportedInThemAndAreForgotten) {
  Log log = ready(2, 365 * kDay);
  log.at(1, KeyAdded{"key-7", "bot", "sha", "user"});
  log.at(1, KeyOwned{"key-7", "lab"});
  UsageRecord first{1, 0, "key-7", "chat", 10, 5, 0, 200}, second{2, 0, "key-gone", "chat", 1, 2, 0, 200};
  log.at(kHour + 1, UsageRecorded{"journal", {first, second}});
  first.seq = 3;
  log.at(2 * kHour, UsageRecorded{"journal", {first}});
  EXPECT_EQ(log.state.hours.at({kHour, "lab"}).prompt_tokens, 10);
  EXPECT_EQ(log.state.hours.at({kHour, "lab"}).requests, 1);
  EXPECT_EQ(log.state.hours.at({kHour, ""}).completion_tokens, 2) << "nobody knows whose key it was";
  EXPECT_EQ(log.state.hours.at({2 * kHour, "lab"}).completion_tokens, 5);
  log.at(300 * kDay, SliceReleasing{"slice-1", ""});
  EXPECT_EQ(log.state.hours.begin()->first.first, 300 * kDay - kUsageHoursKeptNs);
  EXPECT_EQ(log.state.hours.size(), static_cast<size_t>(kUsageHoursKeptNs / kHour));
}

TEST(Tenants, UsageHalvesWithEachHalfLife) {
  Log log = ready(2, kHour);
  log.at(kHour, SliceReleasing{"slice-1", ""});
  const int64_t half = log.state.half_life_ns;
  const double used = log.state.accounts.at("lab").at(kHour, half);
  EXPECT_NEAR(used, 7200, 20) << "two GPU-hours, of which an hour in seven days forgets little";
  EXPECT_NEAR(log.state.accounts.at("lab").at(kHour + half, half), used / 2, 1e-6);
  log.at(kHour + half, PolicyLoaded{"sha", kHour});
  EXPECT_NEAR(log.state.accounts.at("lab").at(2 * kHour + half, log.state.half_life_ns), used / 4, 1e-6);
}

TEST(Tenants, GuestsOnOthersSlicesCountForTheirOwnAccount) {
  Log log = ready(2, kHour);
  JobSubmitted job;
  job.job = job.name = "job-1", job.kind = "batch", job.slice = "slice-1", job.gpus = 1;
  log.at(0, job), log.at(0, JobOwned{"job-1", "guest", "key-2", "normal", ""});
  log.at(0, AttemptStarted{"job-1", "slice-1", 1, 0, {{"vm-0", {0}}}});
  log.at(kMinute, AttemptEnded{"job-1", "", 1, 0, 0, true, false});
  EXPECT_NEAR(log.state.accounts.at("guest").at(kMinute, log.state.half_life_ns), 60, 0.1);
}

TEST(Tenants, AnAttemptCostsWhatItTakesAndNotWhatItsJobAskedFor) {
  Log log = ready(2, kDay);
  log.at(0, JobSubmitted{"job-1", "part", "batch", "slice-1", "{}", 1});
  log.at(0, JobOwned{"job-1", "guest", "", "", ""});
  log.at(0, AttemptStarted{"job-1", "slice-1", 1, 0, {{"vm-0", {0}}}});
  log.at(0, AttemptSized{"job-1", 1, 250});
  const Job& job = log.state.jobs.at("job-1");
  EXPECT_EQ(log.state.cost_microusd(job, kHour), 500'000) << "a quarter of a GPU at 2 dollars";
  log.at(2 * kHour, AttemptEnded{"job-1", "", 1, 0, 0, false, false});
  EXPECT_EQ(log.state.cost_microusd(job, 9 * kHour), 1'000'000);
  EXPECT_NEAR(log.state.accounts.at("guest").gpu_s, 1800, 20) << "a little of it has decayed";
  log.at(3 * kHour, AttemptStarted{"job-1", "slice-1", 2, 0, {{"vm-0", {0}}}});
  EXPECT_EQ(log.state.cost_microusd(job, 4 * kHour), 3'000'000) << "a whole one again";
  EXPECT_FALSE(apply(log.state, {log.state.seq + 1, 4 * kHour, AttemptSized{"job-1", 1, 250}}));
}

TEST(Tenants, AGrownSlicePaysItsNewHostsFromTheMomentItHasThem) {
  Log log = ready(2, kDay);
  log.at(kHour, SliceResizing{"slice-1", 4, 0, {{"h1", "r", "l", 2}}});
  log.at(kHour, VmRequested{"vm-1", "slice-1", "h1", 2});
  log.at(kHour, NodeValidated{"vm-1", "b", ""});
  EXPECT_EQ(log.slice().cost_microusd_at(2 * kHour), 8'000'000) << "2 GPUs, 2 hours";
  log.at(2 * kHour, SliceResized{"slice-1", 4, 0, {}});
  EXPECT_EQ(log.slice().cost_microusd_at(3 * kHour), 16'000'000) << "and one of 4";
  log.at(3 * kHour, SliceResized{"slice-1", 2, 0, {"h0"}});
  log.at(3 * kHour, VmDeleted{"vm-0"});
  EXPECT_EQ(log.slice().cost_microusd_at(4 * kHour), 20'000'000)
      << "and one of 2, though vm-0 lived on a little";
  ASSERT_EQ(log.slice().terms.hosts.size(), 1u);
  EXPECT_EQ(log.slice().terms.hosts[0].host, "h1");
}

TEST(Tenants, AResizeThatFailsLeavesTheSizeAndThePrice) {
  Log log = ready(2, kDay);
  log.at(kHour, SliceResizing{"slice-1", 4, 99, {{"h1", "r", "l", 2}}});
  log.at(kHour, SliceResizeFailed{"slice-1", "no VM"});
  EXPECT_EQ(log.slice().terms.gpus, 2);
  EXPECT_EQ(log.slice().terms.hosts.size(), 1u);
  EXPECT_FALSE(apply(log.state, {log.state.seq + 1, kHour, SliceResizeFailed{"slice-1", "twice"}}));
}

}  // namespace
}  // namespace th::ledger
