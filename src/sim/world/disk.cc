#include "sim/world/disk.h"

namespace th::sim {
namespace {

class SharedStore final : public ledger::Store {
 public:
  SharedStore(std::shared_ptr<ledger::Store> inner, std::shared_ptr<std::vector<ledger::Batch>> late,
              bool lies)
      : inner_(std::move(inner)), late_(std::move(late)), lies_(lies) {}
  Status append(const ledger::Batch& batch) override {
    if (!lies_) return inner_->append(batch);
    late_->push_back(batch);
    if (late_->size() < 4) return {};
    Status done = inner_->append(late_->front());
    late_->erase(late_->begin());
    return done;
  }
  Status read(int64_t after_seq, const std::function<Status(const ledger::StoredEvent&)>& row) override {
    return inner_->read(after_seq, row);
  }
  Result<std::optional<ledger::StoredAnswer>> find_answer(const std::string& key) override {
    return inner_->find_answer(key);
  }
  Status forget_answers_before(int64_t time_ns) override { return inner_->forget_answers_before(time_ns); }

 private:
  std::shared_ptr<ledger::Store> inner_;
  std::shared_ptr<std::vector<ledger::Batch>> late_;
  bool lies_;
};

}  // namespace

Result<std::unique_ptr<ledger::Store>> Disk::open() {
  unwritten_ = std::make_shared<std::vector<ledger::Batch>>();
  return std::unique_ptr<ledger::Store>(std::make_unique<SharedStore>(log_, unwritten_, loses_synced_writes));
}

void Disk::crash(bool) { unwritten_.reset(); }

}  // namespace th::sim
