#include "serve/scheduler.h"

#include <algorithm>
#include <utility>

namespace th::serve {

Sequence::Sequence(uint64_t id, GenerationRequest request, OnDelta on_delta, int64_t submit_ns)
    : id(id),
      prompt_tokens(static_cast<int64_t>(request.prompt.size())),
      max_tokens(request.max_tokens),
      submit_ns(submit_ns),
      on_delta(std::move(on_delta)),
      tokens(std::move(request.prompt)),
      sampler(request.sampling),
      text(std::move(request.stop)) {}

std::vector<PlannedPiece> Scheduler::plan() {
  admit();
  std::vector<PlannedPiece> pieces;
  int64_t budget = options_.prefill_chunk;
  for (size_t i = 0; i < running_.size(); ++i) {  // secure() may shorten running_, never before i
    Sequence* sequence = running_[i].get();
    const int64_t missing = static_cast<int64_t>(sequence->tokens.size()) - sequence->cached;
    const bool decodes = missing == 1;
    const int64_t count = decodes ? 1 : std::min(missing, budget);
    if (count == 0) continue;
    if (!secure(i, sequence->cached + count)) break;
    if (!decodes) budget -= count;
    pieces.push_back({sequence, count});
  }
  TH_CHECK(!pieces.empty() || (running_.empty() && waiting_.empty()));
  return pieces;
}

// A new sequence takes the blocks of all its tokens at once, and leaves one for each that runs, so that it is
// not thrown out again in the next step.
void Scheduler::admit() {
  while (!waiting_.empty() && running() < options_.max_batch) {
    Sequence& next = *waiting_.front();
    const auto tokens = static_cast<int64_t>(next.tokens.size());
    if (KvCache::blocks_for(tokens) + running() > cache_.free_blocks()) return;
    TH_CHECK(cache_.grow(next.blocks, tokens));
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Blocks for `tokens` positions of running_[index], taken from the youngest sequences if need be; false if
// that was the sequence itself.
bool Scheduler::secure(size_t index, int64_t tokens) {
  while (!cache_.grow(running_[index]->blocks, tokens)) {
    TH_CHECK(running_.size() > 1);
    const bool itself = index + 1 == running_.size();
    preempt_last();
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt_last() {
  std::unique_ptr<Sequence> last = std::move(running_.back());
  running_.pop_back();
  cache_.release(last->blocks);
  last->cached = 0;
  waiting_.push_front(std::move(last));
  ++preempted_;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::remove_if(
    const std::function<bool(const Sequence&)>& over) {
  std::vector<std::unique_ptr<Sequence>> removed;
  const auto take = [&](auto& from) {
    std::erase_if(from, [&](std::unique_ptr<Sequence>& sequence) {
      if (!over(*sequence)) return false;
      cache_.release(sequence->blocks);
      removed.push_back(std::move(sequence));
      return true;
    });
  };
  take(running_);
  take(waiting_);
  return removed;
}

}  // namespace th::serve
