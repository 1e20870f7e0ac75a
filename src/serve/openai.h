#pragma once
// OpenAI's completions and chat completions as JSON: requests in, checked field by field; answers, chunks and
// errors out. Source: https://platform.openai.com/docs/api-reference (completions, chat, streaming, error
// codes).

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "http/message.h"
#include "serve/generation.h"
#include "serve/model_folder.h"

namespace th::serve {

/// {"error":{"message","type","param","code"}}; `param` and `code` are null when empty.
struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param = {}, code = {};
};
http::Response api_error_response(const ApiError& error);
/// What the server itself refuses (no such route, a request that cannot be read), in the same form.
http::Response refusal_response(const Error& error, int status);
template <class T>
using ApiResult = tl::expected<T, ApiError>;

enum class Endpoint { kCompletions, kChat };

/// A request that has been checked, before its prompt is made tokens.
struct ApiRequest {
  std::variant<std::string, std::vector<int32_t>, std::vector<ChatMessage>> prompt;
  std::string model;                  // "" if not given
  std::optional<int64_t> max_tokens;  // not given: 16, for chat the rest of the context
  std::optional<uint64_t> seed;
  SamplingParams sampling;  // without seed
  std::vector<std::string> stop;
  bool stream = false;
  bool include_usage = false;
};

/// Errors: 400 naming the field, what it must be, and for what is known but not supported what to send
/// instead. An unknown field is an error, as OpenAI's is.
ApiResult<ApiRequest> parse_request(Endpoint endpoint, std::string_view body);

/// Writes the answers of one request.
class AnswerWriter {
 public:
  /// created: seconds since 1970.
  AnswerWriter(Endpoint endpoint, std::string id, int64_t created, std::string model, bool include_usage);
  /// The whole answer.
  Json answer(std::string_view text, FinishReason finish, const Usage& usage) const;
  /// One chunk each, without "data: ". The first one of a chat carries the role.
  std::string role_chunk() const;
  std::string text_chunk(std::string_view text) const;
  std::string finish_chunk(FinishReason finish) const;
  std::string usage_chunk(const Usage& usage) const;

 private:
  Json envelope(bool chunk) const;
  std::string chunk(Json choice) const;

  Endpoint endpoint_;
  std::string id_;
  int64_t created_;
  std::string model_;
  bool include_usage_;
};

}  // namespace th::serve
