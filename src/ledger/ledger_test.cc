#include "ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/units.h"

namespace th::ledger {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// Time that the test sets.
class FakeEnv final : public Env {
 public:
  int64_t unix_ns() const override { return now_ns; }
  int64_t monotonic_ns() const override { return now_ns; }
  std::string token() override { return "token"; }
  int64_t now_ns = 1'000 * kSecond;
};

class LedgerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "ledger-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::unique_ptr<Ledger> open() {
    auto store = open_sqlite_store(dir_ / "ledger.db");
    EXPECT_TRUE(store) << store.error().message;
    auto ledger = Ledger::open(*std::move(store), env_);
    EXPECT_TRUE(ledger) << ledger.error().message;
    return *std::move(ledger);
  }
  void sql(const std::string& text) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((dir_ / "ledger.db").c_str(), &db), SQLITE_OK);
    char* problem = nullptr;
    EXPECT_EQ(sqlite3_exec(db, text.c_str(), nullptr, nullptr, &problem), SQLITE_OK) << problem;
    sqlite3_close(db);
  }
  fs::path dir_;
  FakeEnv env_;
};

SliceHeld held(const std::string& id, int64_t gpus, int64_t price) {
  SliceHeld out;
  out.end_ns = kDay;
  out.slice = id, out.name = "demo", out.series = "LOCAL", out.gpus = gpus, out.microusd_per_gpu_hour = price;
  out.hosts = {{"h0", "r0", "leaf0", gpus / 2}, {"h1", "r0", "leaf0", gpus / 2}};
  return out;
}

TEST_F(LedgerTest, ReplayGivesTheSameState) {
  {
    auto ledger = open();
    ledger->stage(held("slice-1", 4, 100));
    ledger->stage(SliceCommitted{"slice-1", ""});
    ledger->stage(VmRequested{"demo-0", "slice-1", "h0", 2});
    ledger->stage(JobSubmitted{"job-1", "train", "batch", "slice-1", "{}", 4});
    ASSERT_TRUE(ledger->commit());
  }
  const auto ledger = open();
  const State& state = ledger->state();
  EXPECT_EQ(state.seq, 4);
  EXPECT_EQ(state.slices.at("slice-1").state, SliceState::kStarting);
  EXPECT_EQ(state.slices.at("slice-1").terms.hosts[1].host, "h1");
  EXPECT_EQ(state.vms.at("demo-0").host, "h0");
  EXPECT_EQ(state.jobs.at("job-1").submitted.gpus, 4);
  EXPECT_EQ(state.next_slice, 2);
  EXPECT_EQ(state.next_job, 2);
}

TEST_F(LedgerTest, WhatIsNotCommittedIsNotKept) {
  {
    auto ledger = open();
    ledger->stage(HostDrained{"h0", "fan"});
    ASSERT_TRUE(ledger->commit());
    ledger->stage(HostDrained{"h1", "fan"});
  }
  EXPECT_EQ(open()->state().drained.size(), 1u);
}

TEST_F(LedgerTest, ADamagedRowIsNamed) {
  {
    auto ledger = open();
    ledger->stage(HostDrained{"h0", "fan"});
    ledger->stage(HostDrained{"h1", "fan"});
    ASSERT_TRUE(ledger->commit());
  }
  sql("UPDATE events SET data = replace(data, 'h1', 'h2') WHERE seq = 2");
  auto ledger = Ledger::open(*open_sqlite_store(dir_ / "ledger.db"), env_);
  ASSERT_FALSE(ledger);
  EXPECT_EQ(ledger.error().code, Code::kDataLoss);
  EXPECT_THAT(ledger.error().message, HasSubstr("event 2 (host_drained) does not match its checksum"));
  sql("DELETE FROM events WHERE seq = 1");
  ledger = Ledger::open(*open_sqlite_store(dir_ / "ledger.db"), env_);
  ASSERT_FALSE(ledger);
  EXPECT_THAT(ledger.error().message, HasSubstr("event 1 is missing"));
}

TEST_F(LedgerTest, AnUnknownKindIsNamed) {
  open();
  sql("INSERT INTO events(seq, time_ns, kind, data, sum) VALUES(1, 5, 'host_painted', '{}', '')");
  auto ledger = Ledger::open(*open_sqlite_store(dir_ / "ledger.db"), env_);
  ASSERT_FALSE(ledger);
  EXPECT_THAT(ledger.error().message, HasSubstr("event 1: event kind 'host_painted' is unknown"));
}

TEST_F(LedgerTest, AFileOfTheFirstSchemaIsMigratedWithItsEvents) {
  // The tables as version 1 made them.
  sql("CREATE TABLE events(seq INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT "
      "NOT NULL);"
      "CREATE TABLE answers(key TEXT PRIMARY KEY, request_sha256 TEXT NOT NULL, time_ns INTEGER NOT NULL,"
      " status INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;"
      "INSERT INTO events VALUES(1, 7, 'host_drained', '{\"host\":\"h0\",\"reason\":\"fan\"}'); PRAGMA "
      "user_version=1;");
  auto ledger = open();
  EXPECT_EQ(ledger->state().drained.at("h0"), "fan");
  ledger->stage(HostResumed{"h0"});
  ASSERT_TRUE(ledger->commit());
  ledger.reset();
  EXPECT_TRUE(open()->state().drained.empty());
}

TEST_F(LedgerTest, AFileOfALaterSchemaIsRefused) {
  open();
  sql("PRAGMA user_version=99");
  auto store = open_sqlite_store(dir_ / "ledger.db");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(store.error().message, HasSubstr("schema version 99"));
}

TEST_F(LedgerTest, TheAuditLogIsKeptWithItsEventsAndOnlyAddedTo) {
  {
    auto ledger = open();
    ledger->stage(HostDrained{"h0", "fan"});
    ledger->stage_audit(
        {0, 0, 200, "ann", "key-2", "lab", "127.0.0.1:5", "POST", "/hosts/h0/drain", "h0 drained"});
    ledger->stage_audit(
        {0, 0, 403, "bob", "key-3", "shop", "127.0.0.1:6", "DELETE", "/jobs/job-1", "not his"});
    ASSERT_TRUE(ledger->commit());
    ledger->stage_audit({0, 0, 200, "eve", "key-4", "", "", "POST", "/never", "not committed"});
  }
  auto ledger = open();
  auto found = [&](const AuditQuery& query) {
    std::string out;
    EXPECT_TRUE(ledger->read_audit(query, [&](const AuditRecord& row) {
      out += std::to_string(row.seq) + row.who + std::to_string(row.status) + " ";
      return true;
    }));
    return out;
  };
  EXPECT_EQ(found({}), "2bob403 1ann200 ");
  EXPECT_EQ(found({"key-2", "", 0, 0, 0}), "1ann200 ");
  EXPECT_EQ(found({"", "jobs", 0, 0, 0}), "2bob403 ");
  EXPECT_EQ(found({"", "", 0, 0, 2}), "1ann200 ");
  EXPECT_EQ(found({"", "", env_.now_ns + 1, 0, 0}), "");
  EXPECT_EQ(found({"", "", 0, env_.now_ns, 0}), "");
  ledger.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((dir_ / "ledger.db").c_str(), &db), SQLITE_OK);
  for (const char* change : {"UPDATE audit SET who = 'eve'", "DELETE FROM audit",
                             "INSERT OR REPLACE INTO audit VALUES(1, 0, '', '', '', '', '', '', 0, '')"})
    EXPECT_EQ(sqlite3_exec(db, change, nullptr, nullptr, nullptr), SQLITE_CONSTRAINT) << change;
  sqlite3_close(db);
}

TEST_F(LedgerTest, AFileThatIsNoDatabaseIsRefused) {
  std::ofstream(dir_ / "ledger.db") << std::string(4096, 'x');
  auto store = open_sqlite_store(dir_ / "ledger.db");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, Code::kDataLoss);
}

TEST_F(LedgerTest, EveryAcknowledgedCommandSurvivesKill) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // Each commit is acknowledged by its number on the pipe, as a command would be by its answer.
    auto ledger = open();
    for (int32_t i = 1;; ++i) {
      ledger->stage(HostDrained{"h" + std::to_string(i), "fan"});
      ledger->stage_answer("key-" + std::to_string(i), "sha", 200, std::to_string(i));
      if (!ledger->commit() || ::write(pipe_fds[1], &i, sizeof i) != sizeof i) ::_exit(1);
    }
  }
  ::close(pipe_fds[1]);
  int32_t acknowledged = 0, number = 0;
  while (acknowledged < 40 && ::read(pipe_fds[0], &number, sizeof number) == sizeof number)
    acknowledged = number;
  ::kill(child, SIGKILL);
  while (::read(pipe_fds[0], &number, sizeof number) == sizeof number) acknowledged = number;
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ::close(pipe_fds[0]);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_GE(acknowledged, 40);
  auto ledger = open();
  for (int32_t i = 1; i <= acknowledged; ++i) {
    EXPECT_TRUE(ledger->state().drained.count("h" + std::to_string(i))) << i;
    const auto answer = ledger->find_answer("key-" + std::to_string(i), "sha");
    ASSERT_TRUE(answer && *answer) << i;
    EXPECT_EQ((*answer)->body, std::to_string(i));
  }
  // At most the one command that was under way is there without its answer having been read.
  EXPECT_LE(ledger->state().seq, acknowledged + 1);
}

TEST_F(LedgerTest, AnIdempotencyKeyGetsTheSameAnswerAndNoOtherRequest) {
  auto ledger = open();
  EXPECT_FALSE(*ledger->find_answer("k", "sha-1"));
  ledger->stage_answer("k", "sha-1", 200, "{\"id\":1}");
  EXPECT_EQ((*ledger->find_answer("k", "sha-1"))->body, "{\"id\":1}") << "also while it is only staged";
  ASSERT_TRUE(ledger->commit());
  ledger = open();
  EXPECT_EQ((*ledger->find_answer("k", "sha-1"))->body, "{\"id\":1}");
  const auto other = ledger->find_answer("k", "sha-2");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::kInvalidArgument);
}

TEST_F(LedgerTest, AnswersAreForgottenAfterAWeek) {
  auto ledger = open();
  ledger->stage_answer("k", "sha", 200, "{}");
  ASSERT_TRUE(ledger->commit());
  env_.now_ns += 8 * kDay;
  EXPECT_FALSE(*open()->find_answer("k", "sha"));
}

TEST(Metering, CountsTheNodesThatAreThereFromHandOverToRelease) {
  FakeEnv env;
  auto ledger = *Ledger::open(open_memory_store(), env);
  auto at = [&](int64_t second, Event event) {
    env.now_ns = second * kSecond;
    ledger->stage(std::move(event));
  };
  // 4 GPUs at $0.36 a GPU-hour: 100 micro-dollars a GPU-second.
  at(2000, held("slice-1", 4, 360'000));
  at(2000, SliceCommitted{"slice-1", ""});
  at(2000, VmRequested{"demo-0", "slice-1", "h0", 2});
  at(2000, VmRequested{"demo-1", "slice-1", "h1", 2});
  at(2001, VmUp{"demo-0", "t"});
  at(2001, VmUp{"demo-1", "t"});
  at(2002, NodeValidated{"demo-0", "b", "127.0.0.1"});
  at(2005, NodeValidated{"demo-1", "b", "127.0.0.1"});
  at(2010, SliceReady{"slice-1", ""});  // nothing is paid before
  EXPECT_EQ(ledger->state().slices.at("slice-1").gpu_ns_at(2010 * kSecond), 0);
  at(2020, NodeDown{"demo-1", "gone"});  // 10 s × 4 GPUs = 40
  EXPECT_EQ(ledger->state().slices.at("slice-1").gpu_ns_at(2020 * kSecond), 40 * kSecond);
  at(2021, VmDeleted{"demo-1"});
  at(2021, SliceHostReplaced{"slice-1", "h1", {"h2", "r1", "leaf1", 2}});
  at(2021, VmRequested{"demo-2", "slice-1", "h2", 2});
  at(2025, NodeValidated{"demo-2", "b", "127.0.0.1"});  // 5 s × 2 GPUs = 10
  at(2035, SliceReleasing{"slice-1", "by hand"});       // 10 s × 4 GPUs = 40
  at(2035, VmBilled{"demo-0", 1000, 2030});
  at(2040, VmDeleted{"demo-0"});
  at(2040, VmDeleted{"demo-2"});
  at(2041, SliceReleased{"slice-1", ""});
  const Slice& slice = ledger->state().slices.at("slice-1");
  EXPECT_EQ(slice.gpu_ns_at(9999 * kSecond), 90 * kSecond);
  EXPECT_EQ(slice.cost_microusd_at(9999 * kSecond), 9000);
}

TEST(Apply, RefusesWhatDoesNotFollowAndLeavesNoTrace) {
  State state;
  const Status unknown = apply(state, {1, 10, SliceCommitted{"slice-7", ""}});
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("slice slice-7 is unknown"));
  EXPECT_EQ(state.seq, 0);
  ASSERT_TRUE(apply(state, {1, 10, held("slice-1", 4, 1)}));
  EXPECT_FALSE(apply(state, {2, 11, SliceReady{"slice-1", ""}})) << "it was not committed";
  EXPECT_FALSE(apply(state, {3, 11, SliceCommitted{"slice-1", ""}})) << "a gap";
  EXPECT_FALSE(apply(state, {2, 9, SliceCommitted{"slice-1", ""}})) << "older than the one before";
  EXPECT_TRUE(apply(state, {2, 11, SliceCommitted{"slice-1", ""}}));
}

TEST(Apply, TakesEachUsageRecordOnce) {
  State state;
  UsageRecord record;
  record.seq = 5, record.deployment = "chat", record.key_id = "key-2", record.prompt_tokens = 7,
  record.completion_tokens = 3;
  ASSERT_TRUE(apply(state, {1, 1, UsageRecorded{"j", {record}}}));
  EXPECT_FALSE(apply(state, {2, 1, UsageRecorded{"j", {record}}}));
  ASSERT_TRUE(apply(state, {2, 1, UsageRecorded{"other", {record}}}));
  const TokenUsage& use = state.tokens.at({"chat", "key-2"});
  EXPECT_EQ(use.requests, 2);
  EXPECT_EQ(use.prompt_tokens, 14);
  EXPECT_EQ(use.completion_tokens, 6);
}

TEST(Apply, JobsGoThroughAttempts) {
  State state;
  int64_t seq = 0;
  auto step = [&](Event event) {
    ++seq;
    const Status done = apply(state, {seq, seq, std::move(event)});
    if (!done) --seq;
    return done.has_value();
  };
  ASSERT_TRUE(step(held("slice-1", 2, 1)));
  ASSERT_TRUE(step(JobSubmitted{"job-1", "t", "batch", "slice-1", "{}", 2}));
  EXPECT_FALSE(step(AttemptStarted{"job-1", "slice-1", 2, 20000, {{"demo-0", {0}}}}))
      << "attempts count from 1";
  ASSERT_TRUE(step(AttemptStarted{"job-1", "slice-1", 1, 20000, {{"demo-0", {0}}, {"demo-0", {1}}}}));
  EXPECT_FALSE(step(AttemptStarted{"job-1", "slice-1", 2, 20000, {}})) << "the first one is open";
  ASSERT_TRUE(step(AttemptRunning{"job-1", 1}));
  EXPECT_FALSE(step(RankExited{"job-1", "demo-0", "", 1, 2, 0, 9})) << "no such rank";
  ASSERT_TRUE(step(RankExited{"job-1", "demo-0", "", 1, 1, -1, 9}));
  ASSERT_TRUE(step(AttemptEnded{"job-1", "rank 1 was killed", 1, 60, 10, false, true}));
  const Job& job = state.jobs.at("job-1");
  EXPECT_EQ(job.state, JobState::kRestarting);
  EXPECT_EQ(job.retries_used, 1);
  EXPECT_EQ(job.lost_steps, 10);
  ASSERT_TRUE(step(AttemptStarted{"job-1", "slice-1", 2, 20000, {{"demo-0", {0}}, {"demo-0", {1}}}}));
  ASSERT_TRUE(step(JobFinished{"job-1", "succeeded", "", ""}));
  EXPECT_FALSE(step(JobCancelling{"job-1", "cancelled", ""})) << "it has ended";
  EXPECT_TRUE(job.ended());
}

TEST(Events, EveryFieldOfAnEventComesBack) {
  AttemptStarted event;
  event.job = "job-1", event.slice = "slice-1", event.attempt = 3, event.master_port = 20001;
  event.ranks = {{"demo-0", {0, 1}}, {"demo-1", {1}}};
  EXPECT_EQ(event_to_json(event), R"({"job":"job-1","slice":"slice-1","attempt":3,"master_port":20001,)"
                                  R"("ranks":[{"vm":"demo-0","gpus":[0,1]},{"vm":"demo-1","gpus":[1]}]})");
  const auto again = event_from_json("attempt_started", event_to_json(event));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(event_to_json(*again), event_to_json(event));
}

TEST(Events, WhatIsNoEventIsNamed) {
  auto message = [](const char* kind, const char* json) {
    const auto event = event_from_json(kind, json);
    return event ? std::string("taken") : event.error().message;
  };
  EXPECT_THAT(message("key_revoked", "{}"), HasSubstr("key_revoked.id is missing"));
  EXPECT_THAT(message("key_revoked", R"({"id":7})"), HasSubstr("key_revoked.id want a string"));
  EXPECT_THAT(message("key_revoked", R"({"id":"k","why":""})"),
              HasSubstr("fields that this version does not know"));
  EXPECT_THAT(message("key_revoked", "[1]"), HasSubstr("want an object"));
  EXPECT_THAT(message("key_revoked", "{"), HasSubstr("event key_revoked"));
  EXPECT_THAT(message("vm_requested", R"({"vm":"v","slice":"s","host":"h","gpus":1.5})"),
              HasSubstr("want an integer"));
  EXPECT_THAT(
      message("attempt_started",
              R"({"job":"j","slice":"s","attempt":1,"master_port":1,"ranks":[{"vm":"v","gpus":["0"]}]})"),
      HasSubstr("ranks[].gpus[] want an integer"));
}

TEST(Events, SubjectsAreWhatItIsAbout) {
  EXPECT_THAT(subjects_of(VmRequested{"demo-0", "slice-1", "h0", 2}),
              ::testing::UnorderedElementsAre("demo-0", "slice-1", "h0"));
}

TEST(Ids, SortByNumber) {
  ById<int> ids;
  for (const char* id : {"job-10", "job-2", "job-1"}) ids[id] = 0;
  EXPECT_EQ(ids.begin()->first, "job-1");
  EXPECT_EQ(ids.rbegin()->first, "job-10");
}

}  // namespace
}  // namespace th::ledger
