#include "serve/engine.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "base/env.h"
#include "base/log.h"
#include "base/units.h"
#include "serve/forward.h"
#include "serve/scheduler.h"

namespace th::serve {

class Engine::Impl {
 public:
  Impl(EngineOptions options, std::shared_ptr<const ModelFolder> model, int64_t blocks, int64_t context)
      : options_(options),
        model_(std::move(model)),
        context_(context),
        cache_(model_->weights.kv_shape(), blocks),
        scheduler_({options.max_batch, options.prefill_chunk}, cache_),
        forward_(model_->weights, {options.max_batch + options.prefill_chunk, options.max_batch, context}) {
    stats_.blocks_total = blocks;
    thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
  }

  int64_t context() const { return context_; }
  Result<uint64_t> submit(GenerationRequest request, OnDelta on_delta);
  void cancel(uint64_t id);
  bool busy() const {
    const std::lock_guard lock(mutex_);
    return stats_.running + stats_.waiting > 0 || !inbox_.empty();
  }
  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  Status check(const GenerationRequest& request) const;
  void work(const std::stop_token& stop);
  bool take_inbox(const std::stop_token& stop);
  void step();
  void advance(Sequence& sequence, std::span<const float> logits);
  bool tell(Sequence& sequence, Delta delta);
  void remove_cancelled(const std::vector<uint64_t>& ids);
  void abandon_all();

  const EngineOptions options_;
  const std::shared_ptr<const ModelFolder> model_;
  const int64_t context_;

  // Of the engine's thread.
  KvCache cache_;
  Scheduler scheduler_;
  Forward forward_;
  std::unordered_set<uint64_t> ended_, gone_;  // sequences that this step finished, and whose client left
  EngineStats counts_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  std::vector<std::unique_ptr<Sequence>> inbox_;  // mutex_
  std::vector<uint64_t> cancels_;                 // mutex_
  uint64_t last_id_ = 0;                          // mutex_
  bool ending_ = false;                           // mutex_
  int64_t refused_ = 0;                           // mutex_
  EngineStats stats_;                             // mutex_

  std::jthread thread_;  // last: joined before the rest goes
};

Status Engine::Impl::check(const GenerationRequest& request) const {
  if (request.prompt.empty()) return fail(Code::kInvalidArgument, "the prompt has no tokens: send some text");
  if (request.max_tokens < 1) {
    return fail(Code::kInvalidArgument,
                fmt::format("max_tokens: want at least 1, got {}", request.max_tokens));
  }
  const int64_t vocab = model_->tokenizer.vocab_size();
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab) {
      return fail(Code::kInvalidArgument,
                  fmt::format("token {} of the prompt is not in [0, {})", token, vocab));
    }
  }
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt >= context_) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("the prompt has {} tokens, and the context of {} must have room for one more: shorten it",
                    prompt, context_));
  }
  return {};
}

Result<uint64_t> Engine::Impl::submit(GenerationRequest request, OnDelta on_delta) {
  TH_RETURN_IF_ERROR(check(request));
  request.max_tokens = std::min(request.max_tokens, context_ - static_cast<int64_t>(request.prompt.size()));
  const std::lock_guard lock(mutex_);
  if (ending_) return fail(Code::kUnavailable, "the engine is ending: send the request to another replica");
  if (stats_.waiting + static_cast<int64_t>(inbox_.size()) >= options_.max_waiting) {
    ++refused_;
    return fail(Code::kResourceExhausted,
                fmt::format("{} requests wait already: try again later", options_.max_waiting));
  }
  inbox_.push_back(std::make_unique<Sequence>(++last_id_, std::move(request), std::move(on_delta),
                                              Env::real().monotonic_ns()));
  wake_.notify_one();
  return last_id_;
}

void Engine::Impl::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  cancels_.push_back(id);
  wake_.notify_one();
}

void Engine::Impl::work(const std::stop_token& stop) {
  if (options_.threads > 0) omp_set_num_threads(options_.threads);
  while (take_inbox(stop)) step();
  abandon_all();
}

// Waits until there is something to do. False: the engine is to end.
bool Engine::Impl::take_inbox(const std::stop_token& stop) {
  std::vector<uint64_t> cancels;
  {
    std::unique_lock lock(mutex_);
    const bool idle = scheduler_.running() + scheduler_.waiting() == 0;
    wake_.wait(lock, stop, [&] { return !idle || !inbox_.empty() || !cancels_.empty(); });
    if (stop.stop_requested()) return false;
    for (std::unique_ptr<Sequence>& sequence : inbox_) scheduler_.add(std::move(sequence));
    inbox_.clear();
    cancels.swap(cancels_);
    stats_.waiting = scheduler_.waiting();
  }
  remove_cancelled(cancels);
  return true;
}

void Engine::Impl::remove_cancelled(const std::vector<uint64_t>& ids) {
  if (ids.empty()) return;
  const std::unordered_set<uint64_t> set(ids.begin(), ids.end());
  counts_.cancelled += static_cast<int64_t>(
      scheduler_.remove_if([&](const Sequence& s) { return set.contains(s.id); }).size());
}

void Engine::Impl::step() {
  const int64_t start_ns = Env::real().monotonic_ns();
  const std::vector<PlannedPiece> plan = scheduler_.plan();
  std::vector<SequencePiece> pieces;
  for (const PlannedPiece& p : plan) {
    const std::span<const int32_t> tokens(p.sequence->tokens);
    pieces.push_back({tokens.subspan(static_cast<size_t>(p.sequence->cached), static_cast<size_t>(p.count)),
                      p.sequence->cached, &p.sequence->blocks, p.samples()});
  }
  if (!pieces.empty()) {
    std::span<const float> logits = forward_.run(pieces, cache_);
    const auto vocab = static_cast<size_t>(model_->weights.config.vocab_size);
    for (const PlannedPiece& p : plan) {
      const bool samples = p.samples();
      p.sequence->cached += p.count;
      if (!samples) continue;
      // A vocabulary that was rounded up has logits without a token.
      advance(*p.sequence, logits.first(static_cast<size_t>(model_->tokenizer.vocab_size())));
      logits = logits.subspan(vocab);
    }
    ++counts_.steps;
    counts_.step_ns += Env::real().monotonic_ns() - start_ns;
  }
  counts_.finished += static_cast<int64_t>(ended_.size());
  counts_.cancelled += static_cast<int64_t>(gone_.size());
  if (!ended_.empty() || !gone_.empty()) {
    scheduler_.remove_if([&](const Sequence& s) { return ended_.contains(s.id) || gone_.contains(s.id); });
    ended_.clear();
    gone_.clear();
  }
  counts_.running = scheduler_.running();
  counts_.waiting = scheduler_.waiting();
  counts_.preempted = scheduler_.preempted();
  counts_.blocks_total = cache_.total_blocks();
  counts_.blocks_used = cache_.total_blocks() - cache_.free_blocks();
  const std::lock_guard lock(mutex_);
  stats_ = counts_;
  stats_.refused = refused_;
}

// Samples the next token of a sequence and tells its client.
void Engine::Impl::advance(Sequence& sequence, std::span<const float> logits) {
  if (sequence.completion_tokens() == 0) {
    counts_.prompt_tokens += sequence.prompt_tokens;
    ++counts_.first_tokens;
    counts_.first_token_ns += Env::real().monotonic_ns() - sequence.submit_ns;
  }
  const int32_t token = sequence.sampler.sample(logits);
  Delta delta;
  const std::vector<int32_t>& ends = model_->end_tokens;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    delta.finish = FinishReason::kStop;
  } else {
    sequence.tokens.push_back(token);
    ++counts_.completion_tokens;
    delta.text = sequence.text.push(model_->tokenizer.token_bytes(token));
    if (sequence.text.stopped()) {
      delta.finish = FinishReason::kStop;
    } else if (sequence.completion_tokens() == sequence.max_tokens) {
      delta.finish = FinishReason::kLength;
    }
  }
  if (delta.finish) delta.text += sequence.text.finish();
  const bool last = delta.last();
  if (!tell(sequence, std::move(delta)) && !last) {
    gone_.insert(sequence.id);
  } else if (last) {
    ended_.insert(sequence.id);
  }
}

bool Engine::Impl::tell(Sequence& sequence, Delta delta) {
  delta.usage = {sequence.prompt_tokens, sequence.completion_tokens()};
  return sequence.on_delta(delta);
}

void Engine::Impl::abandon_all() {
  std::vector<std::unique_ptr<Sequence>> left;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    left.swap(inbox_);
  }
  for (std::unique_ptr<Sequence>& sequence : scheduler_.remove_if([](const Sequence&) { return true; })) {
    left.push_back(std::move(sequence));
  }
  for (const std::unique_ptr<Sequence>& sequence : left) {
    Delta delta;
    delta.error =
        Error{Code::kUnavailable, "the engine ended before the completion did: send the request again"};
    tell(*sequence, std::move(delta));
  }
}

Result<std::unique_ptr<Engine>> Engine::start(EngineOptions options,
                                              std::shared_ptr<const ModelFolder> model) {
  const auto want = [](const char* name, int value, int least, int most) -> Status {
    if (value >= least && value <= most) return {};
    return fail(Code::kInvalidArgument, fmt::format("{}: want {} to {}, got {}", name, least, most, value));
  };
  TH_RETURN_IF_ERROR(want("max_batch", options.max_batch, 1, 4096));
  TH_RETURN_IF_ERROR(want("max_waiting", options.max_waiting, 1, 1 << 20));
  TH_RETURN_IF_ERROR(want("prefill_chunk", options.prefill_chunk, 2, 1 << 16));
  TH_RETURN_IF_ERROR(want("threads", options.threads, 0, 1024));
  const int64_t block_bytes = model->weights.kv_shape().bytes_per_block();
  const int64_t model_context = model->weights.config.max_position_embeddings;
  // More blocks than max_batch whole contexts need would never be used.
  const int64_t most = KvCache::blocks_for(model_context) * options.max_batch;
  const int64_t blocks = std::min(most, options.kv_memory_bytes / block_bytes);
  if (blocks < 1) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("the KV cache needs at least {} for one block of {} tokens, got {}: give it more memory",
                    format_bytes(block_bytes), kBlockTokens, format_bytes(options.kv_memory_bytes)));
  }
  const int64_t context = std::min(model_context, blocks * kBlockTokens);
  if (context < model_context) {
    log_warn("the KV cache holds {} tokens: less than the model's context of {}", context, model_context);
  }
  try {
    return std::unique_ptr<Engine>(
        new Engine(std::make_unique<Impl>(options, std::move(model), blocks, context)));
  } catch (const std::bad_alloc&) {
    return fail(Code::kResourceExhausted, fmt::format("no memory for a KV cache of {}: give it less",
                                                      format_bytes(blocks * block_bytes)));
  }
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;
int64_t Engine::context_tokens() const { return impl_->context(); }
Result<uint64_t> Engine::submit(GenerationRequest request, OnDelta on_delta) {
  return impl_->submit(std::move(request), std::move(on_delta));
}
void Engine::cancel(uint64_t id) { impl_->cancel(id); }
bool Engine::busy() const { return impl_->busy(); }
EngineStats Engine::stats() const { return impl_->stats(); }

}  // namespace th::serve
