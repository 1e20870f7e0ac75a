#pragma once
// Where the log lies: SQLite on a disk, or memory. Both behave alike, but for surviving the process.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::ledger {

/// One row of the log.
struct StoredEvent {
  int64_t seq = 0, time_ns = 0;
  std::string kind, data;
};
/// The answer to a command that carried an idempotency key.
struct StoredAnswer {
  std::string key, request_sha256;
  int64_t time_ns = 0, status = 0;
  std::string body;
};
/// A change that somebody asked for, or tried to. who: the name of a user or a key; tenant: the one that it
/// acted in. No secrets.
struct AuditRecord {
  int64_t seq = 0, time_ns = 0, status = 0;  // seq: given by the store, rising; status: of HTTP
  std::string who, key, tenant, peer, method, path, summary;
};
/// Empty, 0: whatever it is. who: a name or a key's id; what: a method, or part of a path or summary.
struct AuditQuery {
  std::string who, what;
  int64_t since_ns = 0, until_ns = 0, before_seq = 0;
};
struct Batch {
  std::vector<StoredEvent> events;
  std::vector<StoredAnswer> answers;
  std::vector<AuditRecord> audit;
  bool empty() const { return events.empty() && answers.empty() && audit.empty(); }
};

/// Thread: one owner.
class Store {
 public:
  virtual ~Store() = default;
  /// All of it or nothing; on success it survives a crash of the machine. Errors: kNoSpace, kDataLoss,
  /// kInternal.
  virtual Status append(const Batch& batch) = 0;
  /// Rows with seq > after_seq in order, until `row` returns an error (which is returned).
  /// Errors: kDataLoss naming the row whose checksum is wrong or that is missing.
  virtual Status read(int64_t after_seq, const std::function<Status(const StoredEvent&)>& row) = 0;
  virtual Result<std::optional<StoredAnswer>> find_answer(const std::string& key) = 0;
  /// Newest first, until `row` returns false. Stores without an audit log have none.
  virtual Status read_audit(const AuditQuery&, const std::function<bool(const AuditRecord&)>&) { return {}; }
  /// Forgets answers that were given before `time_ns`.
  virtual Status forget_answers_before(int64_t time_ns) = 0;
};

/// The schema that this program writes; older files are migrated when they are opened.
inline constexpr int kSchemaVersion = 3;

/// Errors: kFailedPrecondition (written by a later version), kDataLoss (not a ledger, damaged), kNoSpace.
/// `vfs`: the SQLite VFS that it lies on; empty: the machine's files.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file,
                                                 const std::string& vfs = {});
std::unique_ptr<Store> open_memory_store();

}  // namespace th::ledger
