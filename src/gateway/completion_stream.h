#pragma once
// From the events of a replica to those of the client: usage taken out, texts checked, results annotated.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "gateway/openai.h"
#include "safety/content_filter.h"

namespace th::gateway {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

/// Thread: one owner. Memory: the chunks of the last kWindowBytes of text of each choice.
class CompletionStream {
 public:
  struct Options {
    Endpoint endpoint = Endpoint::kCompletions;
    bool pass_usage = false;  // the client asked for the usage chunk
    bool annotate = false;    // Azure: content_filter_results and prompt_filter_results
    int64_t choices = 1;
    int64_t prompt_tokens = 0;  // estimate, used when no usage comes
    std::shared_ptr<const safety::ContentFilter> filter = nullptr;
    safety::Verdict prompt_verdict = {};
  };
  explicit CompletionStream(Options options);
  ~CompletionStream();

  /// Takes the data of one event of the replica; appends what the client gets now, each a whole chunk, as
  /// JSON. Errors: kInternal (the replica sent something that is no chunk), kUnavailable (it sent an error;
  /// its message).
  Status take(std::string_view data, std::vector<Json>& out);

  /// The replica said [DONE], or every choice was stopped by the filter: nothing more is wanted.
  bool complete() const;
  /// What the replica reported, else the estimate and the number of chunks with text that came.
  Usage usage() const;

 private:
  struct Choice;
  void take_choice(int64_t index, Json chunk, std::vector<Json>& out);
  void block(Choice& choice, Json chunk, std::vector<Json>& out);
  void release(Choice& choice, uint64_t showable, std::vector<Json>& out);
  void emit(Choice& choice, Json chunk, std::vector<Json>& out);
  void announce_prompt_results(std::vector<Json>& out);

  Options options_;
  std::map<int64_t, std::unique_ptr<Choice>> choices_;
  int64_t finished_ = 0;
  int64_t text_chunks_ = 0;
  bool done_ = false;
  bool blocked_ = false;
  bool announced_ = false;
  bool has_usage_ = false;
  Usage usage_;
};

/// Folds chunks of a stream into the one answer of a request without `stream`.
class Assembler {
 public:
  explicit Assembler(Endpoint endpoint);
  ~Assembler();
  void add(const Json& chunk);
  std::string body(const Usage& usage) const;

 private:
  struct State;
  Endpoint endpoint_;
  std::unique_ptr<State> state_;
};

}  // namespace th::gateway
