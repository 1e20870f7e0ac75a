#pragma once
// Which sequences are in the next step, with how many tokens, and who owns which blocks. No threads, no
// clock, no model: the engine's thread calls it between forward passes.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "serve/generation.h"
#include "serve/kv_cache.h"
#include "serve/sampler.h"
#include "serve/text_stream.h"

namespace th::serve {

/// One generation, from submit to its last delta.
struct Sequence {
  Sequence(uint64_t id, GenerationRequest request, OnDelta on_delta, int64_t submit_ns);

  const uint64_t id;
  const int64_t prompt_tokens;
  const int64_t max_tokens;  // of the completion
  const int64_t submit_ns;   // monotonic
  OnDelta on_delta;
  std::vector<int32_t> tokens;  // prompt and what was sampled
  Sampler sampler;
  TextStream text;
  BlockTable blocks;
  int64_t cached = 0;  // tokens whose keys and values are in the cache

  int64_t completion_tokens() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
};

struct SchedulerOptions {
  int max_batch = 32;
  int prefill_chunk = 64;
};

/// The next `count` tokens of `sequence`, from `sequence->cached` on; its blocks cover them.
struct PlannedPiece {
  Sequence* sequence;
  int64_t count;
  /// Whether the last of them is the last known token, so that the next one is to be sampled.
  bool samples() const { return sequence->cached + count == static_cast<int64_t>(sequence->tokens.size()); }
};

/// First come, first served. Every sequence must fit into the whole cache alone; then the oldest one always
/// gets on.
class Scheduler {
 public:
  Scheduler(SchedulerOptions options, KvCache& cache) : options_(options), cache_(cache) {}

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  /// Admits what there is room for, then plans the next step; takes blocks back from the youngest when they
  /// run short. The pointers hold until the next call of any member. Empty only if there is no sequence.
  std::vector<PlannedPiece> plan();

  /// Takes the sequences out for which `over` holds, blocks released, and returns them.
  std::vector<std::unique_ptr<Sequence>> remove_if(const std::function<bool(const Sequence&)>& over);

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preempted() const { return preempted_; }  // since the start

 private:
  void admit();
  bool secure(size_t index, int64_t tokens);
  void preempt_last();

  SchedulerOptions options_;
  KvCache& cache_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // ascending id
  std::vector<std::unique_ptr<Sequence>> running_;  // ascending id
  int64_t preempted_ = 0;
};

}  // namespace th::serve
