#pragma once
// Requests and refusals in the words of the OpenAI and the Azure OpenAI API.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "http/message.h"
#include "safety/content_filter.h"

namespace th::gateway {

enum class Api { kOpenAi, kAzure };
enum class Endpoint { kCompletions, kChat };

/// A refusal: {"error":{"message","type","param","code"}}.
struct ApiError {
  int status = 500;
  std::string type;  // "invalid_request_error", "server_error", …
  std::string code;
  std::string message;
  std::string param;           // empty: null
  int64_t retry_after_ns = 0;  // over 0: Retry-After, in whole seconds, rounded up
};

// Those that the gateway itself decides on. Each says what to do.
ApiError invalid_key(bool missing);
ApiError unknown_deployment(Api api, const std::string& name);
ApiError unavailable(std::string code, std::string message, int64_t retry_after_ns);  // 503
ApiError too_many(std::string type, std::string message, int64_t retry_after_ns);     // 429

http::Response api_error_response(const ApiError& error);
/// What the server itself refuses (no such route, a request that cannot be read), in the same form.
http::Response refusal_response(const Error& error, int status);
/// The body of the same, for the end of a stream.
std::string api_error_json(const ApiError& error);
/// 400 content_filter with innererror.content_filter_result.
http::Response content_filter_response(const safety::ContentFilter& filter, const safety::Verdict& verdict);
/// {"hate":{"filtered":false,"severity":"safe"},…}, and custom_blocklists where one matched.
Json content_filter_results(const safety::ContentFilter& filter, const safety::Verdict& verdict);

/// "2024-10-21" and the others that the Azure routes know. nullopt: good.
std::optional<ApiError> check_api_version(const http::Request& request);

/// What the gateway needs to know of a request; the rest of the body goes to the replica as it is.
struct CompletionRequest {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string model;  // empty: the body has none
  bool stream = false;
  bool include_usage = false;
  int64_t choices = 1;           // how many texts will come: n × prompts
  int64_t prompt_tokens = 0;     // estimated: a token for every 4 bytes
  int64_t estimated_tokens = 0;  // prompt and the most that may be generated
  std::string prompt_text;       // every text of the prompt, for the content filter
  std::string upstream_body;     // always a stream, with its usage
};

/// Errors: 400 (not JSON, a field missing or of a wrong type), as an ApiError. `deployment`: the model's name
/// in the path (Azure); empty: the body's `model` names it and must be there.
tl::expected<CompletionRequest, ApiError> parse_completion_request(Endpoint endpoint, std::string_view body,
                                                                   std::string_view deployment);

}  // namespace th::gateway
