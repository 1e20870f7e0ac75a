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
  Status forget_answers_before(int64_t time_ns) override {
    std::erase_if(answers_, [&](const auto& item) { return item.second.time_ns < time_ns; });
    return {};
  }

 private:
  std::vector<StoredEvent> events_;
  std::map<std::string, StoredAnswer> answers_;
};

}  // namespace

std::unique_ptr<Store> open_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace th::ledger
