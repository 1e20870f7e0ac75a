#include "sim/world/torn_vfs.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "ledger/store.h"

namespace th::sim {
namespace {

class Connection {
 public:
  explicit Connection(TornDisk& disk) {
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    EXPECT_EQ(sqlite3_open_v2("test.db", &db_, flags, disk.name().c_str()), SQLITE_OK);
  }
  ~Connection() { sqlite3_close_v2(db_); }
  bool run(const std::string& sql) {
    return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
  }
  std::string text(const std::string& sql) {
    std::string out;
    auto take = [](void* to, int, char** values, char**) {
      *static_cast<std::string*>(to) = values[0] ? values[0] : "";
      return 0;
    };
    EXPECT_EQ(sqlite3_exec(db_, sql.c_str(), take, &out, nullptr), SQLITE_OK) << sqlite3_errmsg(db_);
    return out;
  }

 private:
  sqlite3* db_ = nullptr;
};

constexpr const char* kSetUp =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(x)";

TEST(TornVfs, WhatWasCommittedSurvivesAPowerCutAndWhatWasNotIsGone) {
  TornDisk disk(1);
  auto first = std::make_unique<Connection>(disk);
  ASSERT_TRUE(first->run(kSetUp));
  ASSERT_TRUE(first->run("INSERT INTO t VALUES(1)"));
  ASSERT_TRUE(first->run("BEGIN; INSERT INTO t VALUES(2)"));
  disk.cut_power();
  EXPECT_FALSE(first->run("COMMIT")) << "a dead process writes nothing";
  first.reset();
  Connection second(disk);
  EXPECT_EQ(second.text("SELECT group_concat(x) FROM t"), "1");
  EXPECT_EQ(second.text("PRAGMA integrity_check"), "ok");
}

TEST(TornVfs, AProcessThatIsKilledLosesNothingThatItWrote) {
  TornDisk disk(1);
  auto first = std::make_unique<Connection>(disk);
  ASSERT_TRUE(first->run(kSetUp));
  ASSERT_TRUE(first->run("PRAGMA synchronous=OFF; INSERT INTO t VALUES(1)"));
  disk.end_process();
  first.reset();
  EXPECT_EQ(Connection(disk).text("SELECT count(*) FROM t"), "1");
}

TEST(TornVfs, WithoutSyncsAPowerCutTearsWhatWasCommitted) {
  int lost = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    TornDisk disk(seed);
    auto first = std::make_unique<Connection>(disk);
    ASSERT_TRUE(first->run(kSetUp));
    ASSERT_TRUE(first->run("PRAGMA wal_checkpoint(TRUNCATE)"));
    disk.ignores_sync = true;
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(first->run("INSERT INTO t VALUES(randomblob(3000))"));
    disk.cut_power();
    first.reset();
    EXPECT_GT(disk.torn_sectors, 0);
    lost += Connection(disk).text("SELECT count(*) FROM t") != "5";
  }
  EXPECT_GE(lost, 15) << "each of five frames has to keep all of its nine sectors to survive";
}

TEST(TornVfs, EveryCutOfARowOfBatchesKeepsAllThatWasAppendedAndASoundFile) {
  TornDisk disk(7);
  int64_t appended = 0;
  for (int life = 0; life < 40; ++life) {
    auto store = ledger::open_sqlite_store("ledger.db", disk.name());
    ASSERT_TRUE(store) << store.error().message;
    int64_t read = 0;
    ASSERT_TRUE((*store)->read(0, [&](const ledger::StoredEvent& event) -> Status {
      read = event.seq;
      return {};
    }));
    ASSERT_EQ(read, appended);
    for (int i = 0; i < life; ++i) {
      ledger::Batch batch;
      batch.events.push_back({++appended, appended, "test", std::string(static_cast<size_t>(i) * 97, 'x')});
      ASSERT_TRUE((*store)->append(batch));
    }
    life % 2 ? disk.cut_power() : disk.end_process();
  }
  EXPECT_GT(appended, 700);
}

}  // namespace
}  // namespace th::sim
