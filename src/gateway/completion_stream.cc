#include "gateway/completion_stream.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace th::gateway {

namespace {

constexpr int64_t kMaxTokens = 1'000'000'000;  // as the controller takes in a usage record

/// The text of a choice of a chunk; empty when there is none.
std::string text_of(const Json& choice) {
  const Json* holder = &choice;
  const char* field = "text";
  if (auto delta = choice.find("delta"); delta != choice.end() && delta->is_object()) {
    holder = &*delta;
    field = "content";
  }
  auto found = holder->find(field);
  return found != holder->end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool has_finish(const Json& choice) {
  auto found = choice.find("finish_reason");
  return found != choice.end() && found->is_string();
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

/// A replica's token counts; a count that is missing or absurd is an error.
Result<Usage> read_usage(const Json& json) {
  Usage usage;
  TH_TRY(usage.prompt_tokens, get_int(json, "prompt_tokens"));
  TH_TRY(usage.completion_tokens, get_int(json, "completion_tokens", 0));
  auto fits = [](int64_t tokens) { return tokens >= 0 && tokens <= kMaxTokens; };
  if (!fits(usage.prompt_tokens) || !fits(usage.completion_tokens)) {
    return fail(Code::kInternal, "the replica's usage is not a sensible number of tokens");
  }
  return usage;
}

std::string error_message(const Json& error) {
  if (error.is_string()) return error.get<std::string>();
  if (error.is_object()) {
    if (auto found = error.find("message"); found != error.end() && found->is_string())
      return found->get<std::string>();
  }
  return "the replica failed";
}

/// Lists grow, other values are replaced: how the log-probabilities of chunks become those of the whole.
void append_lists(Json& into, const Json& from) {
  if (!from.is_object() || !into.is_object()) {
    if (!from.is_null()) into = from;
    return;
  }
  for (const auto& [key, value] : from.items()) {
    Json& target = into[key];
    if (target.is_array() && value.is_array()) {
      target.insert(target.end(), value.begin(), value.end());
    } else if (!value.is_null()) {
      target = value;
    }
  }
}

}  // namespace

struct CompletionStream::Choice {
  explicit Choice(int64_t choice_index, std::shared_ptr<const safety::ContentFilter> filter)
      : index(choice_index), check(std::move(filter)) {}

  struct Held {
    uint64_t end;  // bytes of text up to the end of this chunk
    Json chunk;
  };
  int64_t index;
  safety::StreamCheck check;
  std::deque<Held> held;
  uint64_t bytes = 0;
  bool finished = false;
};

CompletionStream::CompletionStream(Options options) : options_(std::move(options)) {}
CompletionStream::~CompletionStream() = default;

Status CompletionStream::take(std::string_view data, std::vector<Json>& out) {
  if (complete()) return {};
  if (data == "[DONE]") {
    for (auto& [index, choice] : choices_) {
      if (!choice->finished) return fail(Code::kUnavailable, "the replica ended a text without a reason");
    }
    done_ = true;
    return {};
  }
  TH_TRY(Json chunk, parse_json(data, "the replica's event"));
  if (!chunk.is_object()) return fail(Code::kInternal, "the replica sent an event that is not an object");
  if (auto error = chunk.find("error"); error != chunk.end() && !error->is_null()) {
    return fail(Code::kUnavailable, error_message(*error));
  }
  if (auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
    TH_TRY(usage_, read_usage(*usage));
    has_usage_ = true;
  }
  auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array()) {
    return fail(Code::kInternal, "the replica sent an event without 'choices'");
  }
  Json list = std::move(*choices);
  if (!options_.pass_usage) chunk.erase("usage");
  if (list.empty() && options_.pass_usage && has_usage_) {
    chunk["choices"] = Json::array();
    out.push_back(chunk);
  }
  for (Json& choice : list) {
    TH_TRY(int64_t index, get_int(choice, "index"));
    if (index < 0 || index >= options_.choices)
      return fail(Code::kInternal, "the replica sent a choice that was not asked for");
    Json single = chunk;
    single["choices"] = Json::array({choice});
    take_choice(index, std::move(single), out);
  }
  return {};
}

void CompletionStream::take_choice(int64_t index, Json chunk, std::vector<Json>& out) {
  std::unique_ptr<Choice>& slot = choices_[index];
  if (slot == nullptr) slot = std::make_unique<Choice>(index, options_.filter);
  Choice& choice = *slot;
  if (choice.finished) return;
  const Json& content = chunk["choices"][0];
  std::string text = text_of(content);
  bool last = has_finish(content);
  if (!text.empty()) ++text_chunks_;
  choice.bytes += text.size();
  uint64_t showable = choice.bytes;
  if (!options_.filter->off()) {
    showable = choice.check.feed(text);
    if (last) showable = choice.check.finish();
  }
  if (choice.check.verdict().blocked) {
    block(choice, std::move(chunk), out);
    return;
  }
  choice.held.push_back({choice.bytes, std::move(chunk)});
  release(choice, showable, out);
  if (last) {
    choice.finished = true;
    ++finished_;
  }
}

void CompletionStream::release(Choice& choice, uint64_t showable, std::vector<Json>& out) {
  while (!choice.held.empty() && choice.held.front().end <= showable) {
    emit(choice, std::move(choice.held.front().chunk), out);
    choice.held.pop_front();
  }
}

void CompletionStream::block(Choice& choice, Json chunk, std::vector<Json>& out) {
  choice.held.clear();
  choice.finished = true;
  ++finished_;
  blocked_ = true;
  Json end = {{"index", choice.index}};
  if (options_.endpoint == Endpoint::kChat) {
    end["delta"] = Json::object();
  } else {
    end["text"] = "";
  }
  end["logprobs"] = nullptr;
  end["finish_reason"] = "content_filter";
  chunk["choices"] = Json::array({std::move(end)});
  Json usage_chunk = chunk;
  emit(choice, std::move(chunk), out);
  if (complete() && options_.pass_usage) {
    usage_chunk["choices"] = Json::array();
    usage_chunk["usage"] = usage_json(usage());
    out.push_back(std::move(usage_chunk));
  }
}

void CompletionStream::emit(Choice& choice, Json chunk, std::vector<Json>& out) {
  if (options_.annotate && !options_.filter->off()) {
    announce_prompt_results(out);
    chunk["choices"][0]["content_filter_results"] =
        content_filter_results(*options_.filter, choice.check.verdict());
  }
  out.push_back(std::move(chunk));
}

void CompletionStream::announce_prompt_results(std::vector<Json>& out) {
  if (std::exchange(announced_, true)) return;
  Json result = {
      {"prompt_index", 0},
      {"content_filter_results", content_filter_results(*options_.filter, options_.prompt_verdict)}};
  out.push_back({{"id", ""},
                 {"object", ""},
                 {"created", 0},
                 {"model", ""},
                 {"choices", Json::array()},
                 {"prompt_filter_results", Json::array({std::move(result)})}});
}

bool CompletionStream::complete() const { return done_ || (blocked_ && finished_ == options_.choices); }

Usage CompletionStream::usage() const {
  if (has_usage_) return usage_;
  return {.prompt_tokens = options_.prompt_tokens, .completion_tokens = text_chunks_};
}

struct Assembler::State {
  Json head = Json::object();
  Json prompt_results;
  std::map<int64_t, Json> choices;
};

Assembler::Assembler(Endpoint endpoint) : endpoint_(endpoint), state_(std::make_unique<State>()) {}
Assembler::~Assembler() = default;

void Assembler::add(const Json& chunk) {
  if (auto results = chunk.find("prompt_filter_results"); results != chunk.end()) {
    state_->prompt_results = *results;
    return;
  }
  const Json& choices = chunk["choices"];
  if (choices.empty()) return;
  if (state_->head.empty()) {
    for (const char* field : {"id", "object", "created", "model", "system_fingerprint"}) {
      if (auto found = chunk.find(field); found != chunk.end()) state_->head[field] = *found;
    }
  }
  for (const Json& piece : choices) {
    Json& choice = state_->choices[piece["index"].get<int64_t>()];
    if (choice.is_null()) choice = {{"text", ""}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
    choice["text"].get_ref<std::string&>() += text_of(piece);
    if (auto found = piece.find("logprobs"); found != piece.end()) append_lists(choice["logprobs"], *found);
    for (const char* field : {"finish_reason", "content_filter_results"}) {
      if (auto found = piece.find(field); found != piece.end()) choice[field] = *found;
    }
  }
}

std::string Assembler::body(const Usage& usage) const {
  Json body = state_->head;
  if (endpoint_ == Endpoint::kChat) body["object"] = "chat.completion";
  Json choices = Json::array();
  for (const auto& [index, assembled] : state_->choices) {
    Json choice = {{"index", index}};
    for (const auto& [key, value] : assembled.items()) {
      if (key == "text" && endpoint_ == Endpoint::kChat) {
        choice["message"] = {{"role", "assistant"}, {"content", value}, {"refusal", nullptr}};
      } else {
        choice[key] = value;
      }
    }
    choices.push_back(std::move(choice));
  }
  body["choices"] = std::move(choices);
  body["usage"] = usage_json(usage);
  if (!state_->prompt_results.is_null()) body["prompt_filter_results"] = state_->prompt_results;
  return dump_json(body);
}

}  // namespace th::gateway
