#pragma once
// The ledger: events are staged (and visible in state() at once), then committed together in one durable
// transaction.
//
//   loop: for each command: decide on ledger.state(), ledger.stage(events), ledger.stage_answer(...)
//         ledger.commit()           one fsync for all of them
//         answer them
//
// Every command that was answered is in the log; one that was not may or may not be.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/env.h"
#include "ledger/state.h"
#include "ledger/store.h"

namespace th::ledger {

/// What an idempotency key finds.
struct Replay {
  int64_t status = 0;
  std::string body;
};

/// Thread: one owner (the loop).
class Ledger {
 public:
  /// Replays the log. Errors: the store's; kDataLoss naming seq and kind of an event that is damaged, unknown
  /// or does not follow.
  static Result<std::unique_ptr<Ledger>> open(std::unique_ptr<Store> store, Env& env);

  const State& state() const { return state_; }

  /// Applies `event` now, keeps it for the next commit. An event that does not follow from the state is a
  /// bug: aborts.
  void stage(Event event);
  /// Keeps an answer with its idempotency key in the next commit.
  void stage_answer(std::string key, std::string request_sha256, int64_t status, std::string body);
  /// Keeps what somebody asked for in the next commit, with the time of now.
  void stage_audit(AuditRecord record);
  bool has_staged() const { return !staged_.events.empty() || !staged_.answers.empty(); }
  /// Staged entries with seq > after_seq.
  std::vector<Entry> staged_after(int64_t after_seq) const;

  /// One transaction with all that was staged; then tells the listener. On error nothing of it is in the log,
  /// and all of it stays staged: call again later, and let nothing of it be seen outside until then.
  /// Errors: kNoSpace, kInternal.
  Status commit();

  /// The answer that was given (or is staged) for this key; none: the command is new.
  /// Errors: kInvalidArgument: the key was used with another request.
  Result<std::optional<Replay>> find_answer(const std::string& key, const std::string& request_sha256);

  /// Committed entries with seq > after_seq, for readers that missed some.
  Status read(int64_t after_seq, const std::function<Status(const Entry&)>& each);
  /// Committed ones, newest first, until `row` returns false.
  Status read_audit(const AuditQuery& query, const std::function<bool(const AuditRecord&)>& row) {
    return store_->read_audit(query, row);
  }
  /// Called for each entry once it is durable, in order.
  void on_committed(std::function<void(const Entry&)> listener) { listener_ = std::move(listener); }

 private:
  Ledger(std::unique_ptr<Store> store, Env& env) : store_(std::move(store)), env_(&env) {}
  Status replay();

  std::unique_ptr<Store> store_;
  Env* env_;
  State state_;
  Batch staged_;
  std::vector<Entry> staged_entries_;
  std::function<void(const Entry&)> listener_;
};

}  // namespace th::ledger
