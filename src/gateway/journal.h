#pragma once
// Usage records on disk until the controller has taken them: each is counted once, whoever crashes and when.
//
// The file: a header line, then a line a record; each is "CRC32 JSON\n" (8 hex digits over the JSON). See
// docs/gateway.md.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/result.h"
#include "base/units.h"

namespace th::gateway {

struct UsageRecord {
  int64_t seq = 0;      // given by the journal, from 1, never given twice
  int64_t time_ns = 0;  // wall clock at the end of the request
  std::string key_id;
  std::string deployment;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t latency_ns = 0;
  int status = 200;  // HTTP; 499: the client went away, 502: the replica died

  bool operator==(const UsageRecord&) const = default;
};

/// As the journal keeps it and the controller takes it (docs/protocols.md).
Json to_json(const UsageRecord& record);
/// One line with its newline.
std::string encode_record(const UsageRecord& record);
std::string encode_journal_header(std::string_view id, int64_t first_seq);

struct JournalScan {
  std::string id;  // empty: the header is damaged or missing
  int64_t next_seq = 1;
  std::vector<UsageRecord> records;  // ascending seq
  size_t damaged_lines = 0;          // a line that was cut off by a crash counts
};
/// Reads the bytes of a journal; never fails: damaged lines are left out and counted.
JournalScan scan_journal(std::string_view bytes);

class UsageJournal {
 public:
  /// Opens or makes the file. What a crash tore is dropped with a warning; a file whose header is damaged is
  /// kept aside as "PATH.damaged" and a new journal begun. Errors: kNoSpace, kPermissionDenied, kInternal.
  static Result<std::unique_ptr<UsageJournal>> open(std::filesystem::path path);
  /// Writes what was appended, then closes.
  ~UsageJournal();

  /// Queues the record; `done` comes on the journal's thread once it is on the disk, or with the error that
  /// kept it from there (it is then tried again every second; until that works healthy() is false).
  /// Thread-safe, does not block.
  void append(UsageRecord record, std::function<void(Status)> done);
  bool healthy() const;

  const std::string& id() const { return id_; }
  /// Durable records that were not acknowledged, oldest first, at most `max`. Thread: one consumer.
  Result<std::vector<UsageRecord>> unacked(size_t max);
  /// Forgets all records up to and with `seq`. Thread: the consumer.
  Status ack(int64_t seq);
  /// Waits until a record is unacknowledged (true), or for `timeout_ns` (false).
  bool wait_unacked(int64_t timeout_ns);

 private:
  struct Pending {
    UsageRecord record;
    std::function<void(Status)> done;
  };
  UsageJournal(std::filesystem::path path, std::string id, int64_t next_seq, UniqueFd fd, uint64_t bytes,
               uint64_t start);
  void write_loop();
  Status write_batch(std::deque<Pending>& batch);
  Status compact();
  Status reopen();

  const std::filesystem::path path_;
  const std::string id_;

  mutable std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Pending> queue_;
  bool stopping_ = false;
  bool healthy_ = true;

  std::mutex file_mutex_;  // over the file and what follows
  std::condition_variable file_changed_;
  UniqueFd fd_;
  int64_t next_seq_;
  uint64_t durable_bytes_;  // the file is good up to here
  uint64_t acked_bytes_;    // and acknowledged up to here

  std::thread writer_;
};

}  // namespace th::gateway
