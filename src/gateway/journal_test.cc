#include "gateway/journal.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "base/text.h"

namespace th::gateway {
namespace {

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("th-journal-" + random_token().substr(0, 12));
    std::filesystem::create_directories(dir_);
    path_ = dir_ / "usage.journal";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string content() const { return *read_file(path_); }
  void put(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::unique_ptr<UsageJournal> open() const {
    auto journal = UsageJournal::open(path_);
    EXPECT_TRUE(journal.has_value()) << journal.error().message;
    return *std::move(journal);
  }

  std::filesystem::path dir_, path_;
};

UsageRecord record(int64_t prompt_tokens) {
  return {.seq = 0,
          .time_ns = 1'700'000'000'000'000'000,
          .key_id = "key-1",
          .deployment = "demo-chat",
          .prompt_tokens = prompt_tokens,
          .completion_tokens = 7,
          .latency_ns = 5,
          .status = 200};
}

Status append(UsageJournal& journal, int64_t prompt_tokens) {
  std::promise<Status> done;
  journal.append(record(prompt_tokens), [&](Status status) { done.set_value(std::move(status)); });
  return done.get_future().get();
}

std::vector<int64_t> seqs(UsageJournal& journal, size_t max = 100) {
  std::vector<int64_t> out;
  const std::vector<UsageRecord> records = *journal.unacked(max);
  for (const UsageRecord& r : records) out.push_back(r.seq);
  return out;
}

// The checksum was computed with Python's zlib.crc32.
TEST(JournalFormat, IsWhatTheDocsSay) {
  EXPECT_EQ(encode_journal_header("ab12", 3), "4e270cd4 {\"journal\":\"ab12\",\"first_seq\":3}\n");
}

TEST_F(JournalTest, RecordsComeBackInOrderAfterARestart) {
  std::string id;
  {
    auto journal = open();
    id = journal->id();
    EXPECT_EQ(id.size(), 32u);
    for (int64_t i = 1; i <= 3; ++i) ASSERT_TRUE(append(*journal, i).has_value());
    EXPECT_TRUE(journal->wait_unacked(0));
  }
  auto journal = open();
  EXPECT_EQ(journal->id(), id);
  auto records = *journal->unacked(100);
  ASSERT_EQ(records.size(), 3u);
  for (int64_t i = 0; i < 3; ++i) {
    UsageRecord want = record(i + 1);
    want.seq = i + 1;
    EXPECT_EQ(records[static_cast<size_t>(i)], want);
  }
  EXPECT_EQ(seqs(*journal, 2), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::filesystem::status(path_).permissions() & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(JournalTest, WhatWasAcknowledgedIsNotHandedOverAgain) {
  auto journal = open();
  for (int64_t i = 1; i <= 5; ++i) ASSERT_TRUE(append(*journal, i).has_value());
  ASSERT_TRUE(journal->ack(2).has_value());
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{3, 4, 5}));
  ASSERT_TRUE(journal->ack(1).has_value());  // late and harmless
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{3, 4, 5}));
  ASSERT_TRUE(journal->ack(5).has_value());
  EXPECT_FALSE(journal->wait_unacked(0));
  ASSERT_TRUE(append(*journal, 6).has_value());
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{6}));
}

// The file of a crash at every byte of the last write: the records before it stay, the torn one is dropped,
// and the next record takes its number, which nobody has seen.
TEST_F(JournalTest, ATornTailIsDroppedAtEveryLength) {
  {
    auto journal = open();
    for (int64_t i = 1; i <= 2; ++i) ASSERT_TRUE(append(*journal, i).has_value());
  }
  const std::string whole = content();
  const size_t before_last = whole.rfind('\n', whole.size() - 2) + 1;
  for (size_t length = before_last; length < whole.size(); ++length) {
    JournalScan scan = scan_journal(std::string_view(whole).substr(0, length));
    ASSERT_EQ(scan.records.size(), 1u) << length;
    ASSERT_EQ(scan.next_seq, 2) << length;
    ASSERT_EQ(scan.damaged_lines, length == before_last ? 0u : 1u);
  }
  for (size_t length : {before_last, before_last + 1, before_last + 40, whole.size() - 1}) {
    put(whole.substr(0, length));
    auto journal = open();
    ASSERT_EQ(seqs(*journal), (std::vector<int64_t>{1})) << length;
    ASSERT_TRUE(append(*journal, 9).has_value());
    ASSERT_EQ(seqs(*journal), (std::vector<int64_t>{1, 2})) << length;
    ASSERT_EQ((*journal->unacked(9))[1].prompt_tokens, 9);
  }
}

TEST_F(JournalTest, ADamagedLineIsLeftOutAndTheOthersKept) {
  {
    auto journal = open();
    for (int64_t i = 1; i <= 3; ++i) ASSERT_TRUE(append(*journal, i).has_value());
  }
  std::string bytes = content();
  size_t second = bytes.find("\"seq\":2");
  ASSERT_NE(second, std::string::npos);
  bytes[second + 6] = '8';  // its checksum no longer fits
  put(bytes);
  auto journal = open();
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{1, 3}));
  ASSERT_TRUE(append(*journal, 4).has_value());
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{1, 3, 4}));
}

TEST_F(JournalTest, AHeaderThatIsDamagedBeginsANewJournalAndKeepsTheOldFile) {
  std::string old_id;
  {
    auto journal = open();
    old_id = journal->id();
    ASSERT_TRUE(append(*journal, 1).has_value());
  }
  std::string bytes = content();
  bytes[0] = 'z';
  put(bytes);
  auto journal = open();
  EXPECT_NE(journal->id(), old_id);
  EXPECT_TRUE(seqs(*journal).empty());
  EXPECT_EQ(*read_file(path_.string() + ".damaged"), bytes);
}

TEST_F(JournalTest, TheFileIsCutWhenItsHeadIsAcknowledgedAndNumbersGoOn) {
  std::string id;
  int64_t last = 0;
  {
    auto journal = open();
    id = journal->id();
    std::promise<void> done;
    const int kRecords = 9000;  // about 180 bytes each: over the MiB at which the file is written anew
    for (int i = 1; i <= kRecords; ++i) {
      journal->append(record(i), [&, i](Status status) {
        EXPECT_TRUE(status.has_value());
        if (i == kRecords) done.set_value();
      });
    }
    done.get_future().wait();
    EXPECT_GT(content().size(), size_t{1} << 20);
    ASSERT_TRUE(journal->ack(kRecords - 2).has_value());
    EXPECT_LT(content().size(), 1000u);
    EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{kRecords - 1, kRecords}));
    ASSERT_TRUE(append(*journal, 1).has_value());
    last = kRecords + 1;
  }
  {
    auto journal = open();
    EXPECT_EQ(journal->id(), id);
    EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{last - 2, last - 1, last}));
  }
  // A file with nothing left in it still knows which numbers were given.
  put(encode_journal_header(id, last + 1));
  auto journal = open();
  ASSERT_TRUE(append(*journal, 1).has_value());
  EXPECT_EQ(seqs(*journal), (std::vector<int64_t>{last + 1}));
}

TEST_F(JournalTest, ManyThreadsGetOneNumberEach) {
  auto journal = open();
  std::atomic<int> durable = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i)
          journal->append(record(1), [&](Status status) { durable += status.has_value(); });
      });
    }
  }
  for (int waited = 0; durable < 200 && waited < 500; ++waited)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::vector<int64_t> all = seqs(*journal, 1000);
  ASSERT_EQ(all.size(), 200u);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], static_cast<int64_t>(i) + 1);
}

TEST_F(JournalTest, AFolderThatIsMissingIsAnError) {
  auto journal = UsageJournal::open(dir_ / "nowhere" / "usage.journal");
  ASSERT_FALSE(journal.has_value());
  EXPECT_NE(journal.error().message.find("usage.journal"), std::string::npos) << journal.error().message;
}

TEST(JournalScan, NumbersMustRise) {
  UsageRecord a = record(1), b = record(2);
  a.seq = 5;
  b.seq = 5;
  JournalScan scan = scan_journal(encode_journal_header("x", 5) + encode_record(a) + encode_record(b));
  EXPECT_EQ(scan.records.size(), 1u);
  EXPECT_EQ(scan.damaged_lines, 1u);
  EXPECT_EQ(scan.next_seq, 6);
}

}  // namespace
}  // namespace th::gateway
