#include "ledger/ledger.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/units.h"

namespace th::ledger {
namespace {

constexpr int64_t kKeepAnswersNs = 7 * kDay;

Result<Entry> read_entry(const StoredEvent& row) {
  auto event = event_from_json(row.kind, row.data);
  if (!event)
    return fail(Code::kDataLoss, fmt::format("ledger: event {}: {}", row.seq, event.error().message));
  return Entry{row.seq, row.time_ns, *std::move(event)};
}

}  // namespace

Result<std::unique_ptr<Ledger>> Ledger::open(std::unique_ptr<Store> store, Env& env) {
  std::unique_ptr<Ledger> ledger(new Ledger(std::move(store), env));
  TH_RETURN_IF_ERROR(ledger->replay());
  TH_RETURN_IF_ERROR(ledger->store_->forget_answers_before(env.unix_ns() - kKeepAnswersNs));
  return ledger;
}

Status Ledger::replay() {
  return store_->read(0, [this](const StoredEvent& row) -> Status {
    TH_TRY(Entry entry, read_entry(row));
    if (Status applied = apply(state_, entry); !applied) {
      return fail(Code::kDataLoss,
                  fmt::format("ledger: event {} ({}): {}", row.seq, row.kind, applied.error().message));
    }
    return {};
  });
}

void Ledger::stage(Event event) {
  // The wall clock may jump back; the log's time does not.
  Entry entry{state_.seq + 1, std::max(env_->unix_ns(), state_.time_ns), std::move(event)};
  const Status applied = apply(state_, entry);
  if (!applied) {
    log_error("event {} does not follow from the state: {}", kind_of(entry.event), applied.error().message);
    TH_CHECK(!"event follows from the state");
  }
  staged_.events.push_back({entry.seq, entry.time_ns, kind_of(entry.event), event_to_json(entry.event)});
  staged_entries_.push_back(std::move(entry));
}

void Ledger::stage_answer(std::string key, std::string request_sha256, int64_t status, std::string body) {
  staged_.answers.push_back(
      {std::move(key), std::move(request_sha256), env_->unix_ns(), status, std::move(body)});
}

void Ledger::stage_audit(AuditRecord record) {
  record.time_ns = std::max(env_->unix_ns(), state_.time_ns);
  staged_.audit.push_back(std::move(record));
}

std::vector<Entry> Ledger::staged_after(int64_t after_seq) const {
  std::vector<Entry> out;
  for (const Entry& entry : staged_entries_) {
    if (entry.seq > after_seq) out.push_back(entry);
  }
  return out;
}

Status Ledger::commit() {
  if (staged_.empty()) return {};
  TH_RETURN_IF_ERROR(store_->append(staged_));
  staged_ = {};
  const std::vector<Entry> entries = std::exchange(staged_entries_, {});
  if (listener_) {
    for (const Entry& entry : entries) listener_(entry);
  }
  return {};
}

Result<std::optional<Replay>> Ledger::find_answer(const std::string& key, const std::string& request_sha256) {
  std::optional<StoredAnswer> found;
  const auto staged = std::find_if(staged_.answers.begin(), staged_.answers.end(),
                                   [&](const StoredAnswer& answer) { return answer.key == key; });
  if (staged != staged_.answers.end()) {
    found = *staged;
  } else {
    TH_TRY(found, store_->find_answer(key));
  }
  if (!found) return std::optional<Replay>{};
  if (found->request_sha256 != request_sha256) {
    return fail(
        Code::kInvalidArgument,
        "Idempotency-Key '" + key + "' was used with another request; use a new key for a new request");
  }
  return std::optional<Replay>(Replay{found->status, found->body});
}

Status Ledger::read(int64_t after_seq, const std::function<Status(const Entry&)>& each) {
  return store_->read(after_seq, [&](const StoredEvent& row) -> Status {
    TH_TRY(Entry entry, read_entry(row));
    return each(entry);
  });
}

}  // namespace th::ledger
