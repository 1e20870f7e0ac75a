#include <algorithm>
#include <map>

#include "ledger/store.h"

namespace th::ledger {
namespace {

class MemoryStore final : public Store {
 public:
  Status append(const Batch& batch) override {
    events_.insert(events_.end(), batch.events.begin(), batch.events.end());
    for (const StoredAnswer& answer : batch.answers) answers_[answer.key] = answer;
    for (const AuditRecord& record : batch.audit) {
      audit_.push_back(record);
      audit_.back().seq = static_cast<int64_t>(audit_.size());
    }
    return {};
  }
  Status read(int64_t after_seq, const std::function<Status(const StoredEvent&)>& row) override {
    const auto first =
        std::upper_bound(events_.begin(), events_.end(), after_seq,
                         [](int64_t seq, const StoredEvent& event) { return seq < event.seq; });
    for (auto event = first; event != events_.end(); ++event) TH_RETURN_IF_ERROR(row(*event));
    return {};
  }
  Result<std::optional<StoredAnswer>> find_answer(const std::string& key) override {
    const auto found = answers_.find(key);
    return found == answers_.end() ? std::nullopt : std::optional<StoredAnswer>(found->second);
  }
  Status read_audit(const AuditQuery& query, const std::function<bool(const AuditRecord&)>& row) override {
    auto has = [&](const std::string& text) { return text.find(query.what) != std::string::npos; };
    for (auto at = audit_.rbegin(); at != audit_.rend(); ++at) {
      if (query.before_seq != 0 && at->seq >= query.before_seq) continue;
      if (at->time_ns < query.since_ns || (query.until_ns != 0 && at->time_ns >= query.until_ns)) continue;
      if (!query.who.empty() && at->who != query.who && at->key != query.who) continue;
      if (at->method != query.what && !has(at->path) && !has(at->summary)) continue;
      if (!row(*at)) break;
    }
    return {};
  }
  Status forget_answers_before(int64_t time_ns) override {
    std::erase_if(answers_, [&](const auto& item) { return item.second.time_ns < time_ns; });
    return {};
  }

 private:
  std::vector<StoredEvent> events_;
  std::map<std::string, StoredAnswer> answers_;
  std::vector<AuditRecord> audit_;
};

}  // namespace

std::unique_ptr<Store> open_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace th::ledger
