#pragma once
// The inference engine: continuous batching over a paged KV cache. One thread owns all state; requests and
// cancellations are posted to it, deltas come back by callback.
//
// A step takes one token of every sequence that decodes, and at most `prefill_chunk` prompt tokens of those
// that do not yet, in order of arrival; so a long prompt delays the streams of others by a bounded time a
// step. When blocks run short the youngest sequence gives its back, waits, and is recomputed: completions do
// not change, only their time.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "serve/generation.h"
#include "serve/model_folder.h"

namespace th::serve {

struct EngineOptions {
  int max_batch = 32;                            // sequences in one step
  int max_waiting = 1024;                        // requests that wait for a place; more are refused
  int prefill_chunk = 64;                        // prompt tokens in one step
  int64_t kv_memory_bytes = int64_t{256} << 20;  // of all blocks together
  int threads = 0;                               // of the kernels; 0: OMP_NUM_THREADS
};

struct EngineStats {
  int64_t running = 0, waiting = 0;           // sequences now
  int64_t blocks_used = 0, blocks_total = 0;  // of the KV cache
  int64_t prompt_tokens = 0;                  // since the start, also the fields below
  int64_t completion_tokens = 0;
  int64_t finished = 0, cancelled = 0, refused = 0, preempted = 0;
  int64_t steps = 0, step_ns = 0;
  int64_t first_tokens = 0, first_token_ns = 0;  // from submit() to the first token, summed
};

class Engine {
 public:
  /// Takes `model` (kept until the engine ends) and allocates the cache. Errors: kInvalidArgument (an option
  /// out of its range; kv_memory_bytes for less than one block, names the least).
  static Result<std::unique_ptr<Engine>> start(EngineOptions options,
                                               std::shared_ptr<const ModelFolder> model);
  /// What is under way gets a last delta with kUnavailable; joins the thread.
  ~Engine();

  /// Prompt and completion together: the model's context, or what the whole cache holds if that is less.
  int64_t context_tokens() const;

  /// Returns an id for cancel(). The callback may come before submit() returns. Thread-safe.
  /// Errors: kInvalidArgument (an empty prompt, a token that is not in the vocabulary, max_tokens < 1, a
  /// prompt of context_tokens() or more), kResourceExhausted (max_waiting reached), kUnavailable (the engine
  /// is ending).
  Result<uint64_t> submit(GenerationRequest request, OnDelta on_delta);

  /// Ends a generation at the next step; frees its blocks. No further delta comes after that step. An id that
  /// ended already is ignored. Thread-safe, also inside a callback.
  void cancel(uint64_t id);

  /// Whether any generation is under way or waits; false only after its last delta. Thread-safe.
  bool busy() const;
  EngineStats stats() const;  // thread-safe; of the end of the last step

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::serve
