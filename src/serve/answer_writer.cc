#include <nlohmann/json.hpp>

#include "serve/openai.h"

namespace th::serve {
namespace {

const char* finish_name(FinishReason finish) { return finish == FinishReason::kStop ? "stop" : "length"; }

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

Json text_choice(std::string_view text, const Json& finish) {
  return {{"text", text}, {"index", 0}, {"logprobs", nullptr}, {"finish_reason", finish}};
}

Json delta_choice(Json delta, const Json& finish) {
  return {{"index", 0}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", finish}};
}

}  // namespace

AnswerWriter::AnswerWriter(Endpoint endpoint, std::string id, int64_t created, std::string model,
                           bool include_usage)
    : endpoint_(endpoint),
      id_(std::move(id)),
      created_(created),
      model_(std::move(model)),
      include_usage_(include_usage) {}

Json AnswerWriter::envelope(bool chunk) const {
  const char* object = endpoint_ == Endpoint::kCompletions ? "text_completion"
                       : chunk                             ? "chat.completion.chunk"
                                                           : "chat.completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

Json AnswerWriter::answer(std::string_view text, FinishReason finish, const Usage& usage) const {
  Json answer = envelope(false);
  if (endpoint_ == Endpoint::kCompletions) {
    answer["choices"] = Json::array({text_choice(text, finish_name(finish))});
  } else {
    answer["choices"] =
        Json::array({{{"index", 0},
                      {"message", {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}}},
                      {"logprobs", nullptr},
                      {"finish_reason", finish_name(finish)}}});
  }
  answer["usage"] = usage_json(usage);
  return answer;
}

std::string AnswerWriter::chunk(Json choice) const {
  Json chunk = envelope(true);
  chunk["choices"] = Json::array();
  chunk["choices"].push_back(std::move(choice));
  if (include_usage_) chunk["usage"] = nullptr;
  return dump_json(chunk);
}

std::string AnswerWriter::role_chunk() const {
  return chunk(delta_choice({{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}}, nullptr));
}

std::string AnswerWriter::text_chunk(std::string_view text) const {
  if (endpoint_ == Endpoint::kCompletions) return chunk(text_choice(text, nullptr));
  return chunk(delta_choice({{"content", text}}, nullptr));
}

std::string AnswerWriter::finish_chunk(FinishReason finish) const {
  if (endpoint_ == Endpoint::kCompletions) return chunk(text_choice("", finish_name(finish)));
  return chunk(delta_choice(Json::object(), finish_name(finish)));
}

std::string AnswerWriter::usage_chunk(const Usage& usage) const {
  Json chunk = envelope(true);
  chunk["choices"] = Json::array();
  chunk["usage"] = usage_json(usage);
  return dump_json(chunk);
}

}  // namespace th::serve
