// The log in SQLite: WAL, synchronous=FULL (a commit returns after its fsync), one transaction a batch.

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "base/text.h"
#include "ledger/store.h"

namespace th::ledger {
namespace {

/// What turns a file of version i into one of version i+1; version 0 is an empty file. Never edited, only
/// added to.
constexpr const char* kMigrations[kSchemaVersion] = {
    // 1
    "CREATE TABLE events(seq INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT "
    "NOT NULL);"
    "CREATE TABLE answers(key TEXT PRIMARY KEY, request_sha256 TEXT NOT NULL, time_ns INTEGER NOT NULL,"
    " status INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;",
    // 2: a checksum a row ('' in rows from before), and answers by age
    "ALTER TABLE events ADD COLUMN sum TEXT NOT NULL DEFAULT '';"
    "CREATE INDEX answers_by_time ON answers(time_ns);",
    // 3: the audit log, which is only ever added to
    "CREATE TABLE audit(seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, who TEXT NOT NULL,"
    " key TEXT NOT NULL, tenant TEXT NOT NULL, peer TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,"
    " status INTEGER NOT NULL, summary TEXT NOT NULL);"
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN"
    " SELECT RAISE(ABORT, 'the audit log is append-only'); END;"
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN"
    " SELECT RAISE(ABORT, 'the audit log is append-only'); END;"
    "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS(SELECT 1 FROM audit WHERE seq = "
    "NEW.seq)"
    " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;",
};

std::string sum_of(const StoredEvent& e) {
  return sha256_hex(fmt::format("{}\n{}\n{}\n{}", e.seq, e.time_ns, e.kind, e.data)).substr(0, 16);
}

class Statement {
 public:
  Statement(sqlite3* db, const char* sql) {
    sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s_, nullptr);
  }
  Statement(Statement&& other) noexcept : s_(std::exchange(other.s_, nullptr)) {}
  ~Statement() { sqlite3_finalize(s_); }
  void bind(int at, int64_t value) { sqlite3_bind_int64(s_, at, value); }
  void bind(int at, const std::string& value) {
    sqlite3_bind_text64(s_, at, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  int64_t integer(int column) { return sqlite3_column_int64(s_, column); }
  std::string text(int column) {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
    return bytes ? std::string(bytes, sqlite3_column_bytes(s_, column)) : std::string();
  }
  int step() { return s_ ? sqlite3_step(s_) : SQLITE_ERROR; }
  void reset() { sqlite3_reset(s_); }

 private:
  sqlite3_stmt* s_ = nullptr;
};

class SqliteStore final : public Store {
 public:
  SqliteStore(std::string file, std::string vfs) : file_(std::move(file)), vfs_(std::move(vfs)) {}
  ~SqliteStore() override { sqlite3_close_v2(db_); }

  Status open() {
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (int rc = sqlite3_open_v2(file_.c_str(), &db_, flags, vfs_.empty() ? nullptr : vfs_.c_str());
        rc != SQLITE_OK)
      return problem(rc);
    if (vfs_.empty()) ::chmod(file_.c_str(), 0600);
    sqlite3_busy_timeout(db_, 2000);
    TH_RETURN_IF_ERROR(exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF;"));
    return migrate();
  }

  Status append(const Batch& batch) override {
    TH_RETURN_IF_ERROR(exec("BEGIN IMMEDIATE"));
    Status done = insert(batch);
    if (done) done = exec("COMMIT");
    // A failed COMMIT may leave the transaction open (a full disk); a closed one makes this a no-op.
    if (!done && !sqlite3_get_autocommit(db_)) static_cast<void>(exec("ROLLBACK"));
    return done;
  }

  Status read(int64_t after_seq, const std::function<Status(const StoredEvent&)>& row) override {
    Statement select(db_, "SELECT seq, time_ns, kind, data, sum FROM events WHERE seq > ? ORDER BY seq");
    select.bind(1, after_seq);
    int64_t want = after_seq + 1;
    int rc;
    while ((rc = select.step()) == SQLITE_ROW) {
      StoredEvent event{select.integer(0), select.integer(1), select.text(2), select.text(3)};
      const std::string sum = select.text(4);
      if (event.seq != want) return damaged(fmt::format("event {} is missing", want));
      if (!sum.empty() && sum != sum_of(event)) {
        return damaged(fmt::format("event {} ({}) does not match its checksum", event.seq, event.kind));
      }
      ++want;
      TH_RETURN_IF_ERROR(row(event));
    }
    return rc == SQLITE_DONE ? Status() : problem(rc);
  }

  Result<std::optional<StoredAnswer>> find_answer(const std::string& key) override {
    Statement select(db_, "SELECT key, request_sha256, time_ns, status, body FROM answers WHERE key = ?");
    select.bind(1, key);
    const int rc = select.step();
    if (rc == SQLITE_DONE) return std::optional<StoredAnswer>{};
    if (rc != SQLITE_ROW) return problem(rc);
    return std::optional<StoredAnswer>(
        StoredAnswer{select.text(0), select.text(1), select.integer(2), select.integer(3), select.text(4)});
  }

  Status read_audit(const AuditQuery& query, const std::function<bool(const AuditRecord&)>& row) override {
    Statement select(db_,
                     "SELECT seq, time_ns, status, who, key, tenant, peer, method, path, summary FROM audit"
                     " WHERE (?1 = 0 OR seq < ?1) AND time_ns >= ?2 AND (?3 = 0 OR time_ns < ?3)"
                     " AND (?4 = '' OR who = ?4 OR key = ?4)"
                     " AND (?5 = '' OR method = ?5 OR instr(path, ?5) > 0 OR instr(summary, ?5) > 0)"
                     " ORDER BY seq DESC");
    select.bind(1, query.before_seq), select.bind(2, query.since_ns), select.bind(3, query.until_ns);
    select.bind(4, query.who), select.bind(5, query.what);
    int rc;
    while ((rc = select.step()) == SQLITE_ROW) {
      const AuditRecord record{select.integer(0), select.integer(1), select.integer(2), select.text(3),
                               select.text(4),    select.text(5),    select.text(6),    select.text(7),
                               select.text(8),    select.text(9)};
      if (!row(record)) return {};
    }
    return rc == SQLITE_DONE ? Status() : problem(rc);
  }

  Status forget_answers_before(int64_t time_ns) override {
    return exec(fmt::format("DELETE FROM answers WHERE time_ns < {}", time_ns).c_str());
  }

 private:
  Status insert(const Batch& batch) {
    Statement event_row(db_, "INSERT INTO events(seq, time_ns, kind, data, sum) VALUES(?,?,?,?,?)");
    for (const StoredEvent& event : batch.events) {
      event_row.reset();
      event_row.bind(1, event.seq), event_row.bind(2, event.time_ns), event_row.bind(3, event.kind);
      event_row.bind(4, event.data), event_row.bind(5, sum_of(event));
      if (int rc = event_row.step(); rc != SQLITE_DONE) return problem(rc);
    }
    Statement answer_row(
        db_, "INSERT OR REPLACE INTO answers(key, request_sha256, time_ns, status, body) VALUES(?,?,?,?,?)");
    for (const StoredAnswer& answer : batch.answers) {
      answer_row.reset();
      answer_row.bind(1, answer.key), answer_row.bind(2, answer.request_sha256),
          answer_row.bind(3, answer.time_ns);
      answer_row.bind(4, answer.status), answer_row.bind(5, answer.body);
      if (int rc = answer_row.step(); rc != SQLITE_DONE) return problem(rc);
    }
    return insert_audit(batch);
  }

  Status insert_audit(const Batch& batch) {
    Statement row(db_,
                  "INSERT INTO audit(time_ns, status, who, key, tenant, peer, method, path, summary)"
                  " VALUES(?,?,?,?,?,?,?,?,?)");
    for (const AuditRecord& record : batch.audit) {
      row.reset();
      row.bind(1, record.time_ns), row.bind(2, record.status), row.bind(3, record.who);
      row.bind(4, record.key), row.bind(5, record.tenant), row.bind(6, record.peer);
      row.bind(7, record.method), row.bind(8, record.path), row.bind(9, record.summary);
      if (int rc = row.step(); rc != SQLITE_DONE) return problem(rc);
    }
    return {};
  }

  Status migrate() {
    Statement select(db_, "PRAGMA user_version");
    if (int rc = select.step(); rc != SQLITE_ROW) return problem(rc);
    const int64_t version = select.integer(0);
    select.reset();
    if (version < 0 || version > kSchemaVersion) {
      return fail(
          Code::kFailedPrecondition,
          fmt::format("ledger {}: has schema version {}, this program writes {}; use the later program",
                      file_, version, kSchemaVersion));
    }
    for (int64_t from = version; from < kSchemaVersion; ++from) {
      const std::string step =
          fmt::format("BEGIN IMMEDIATE; {} PRAGMA user_version={}; COMMIT;", kMigrations[from], from + 1);
      TH_RETURN_IF_ERROR(exec(step.c_str()));
    }
    return {};
  }

  Status exec(const char* sql) {
    const int rc = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
    return rc == SQLITE_OK ? Status() : problem(rc);
  }

  Status damaged(const std::string& what) const {
    return fail(Code::kDataLoss, "ledger " + file_ + ": " + what + "; restore it from a backup");
  }

  tl::unexpected<Error> problem(int rc) const {
    const int kind = rc & 0xff;
    const std::string text =
        fmt::format("ledger {}: {}", file_, db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(rc));
    const bool disk = kind == SQLITE_FULL || rc == SQLITE_IOERR_WRITE || rc == SQLITE_IOERR_FSYNC;
    if (disk) return fail(Code::kNoSpace, text + "; free some space on its disk");
    if (kind == SQLITE_NOTADB || kind == SQLITE_CORRUPT)
      return fail(Code::kDataLoss, text + "; restore it from a backup");
    return fail(Code::kInternal, text);
  }

  std::string file_, vfs_;
  sqlite3* db_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file, const std::string& vfs) {
  auto store = std::make_unique<SqliteStore>(file.string(), vfs);
  TH_RETURN_IF_ERROR(store->open());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace th::ledger
