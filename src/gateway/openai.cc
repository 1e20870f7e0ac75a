#include "gateway/openai.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"

namespace th::gateway {

namespace {

constexpr int64_t kDefaultMaxTokens = 16;  // of the completions API
constexpr int64_t kDefaultChatTokens =
    256;  // chat has no default limit: a guess, corrected by the real usage
constexpr int64_t kBytesPerToken = 4;
constexpr int64_t kMaxChoices = 128;
constexpr int64_t kMaxTokens = 1'000'000;

constexpr std::array<std::string_view, 18> kApiVersions = {
    "2022-12-01",         "2023-03-15-preview", "2023-05-15",         "2023-06-01-preview",
    "2023-07-01-preview", "2023-08-01-preview", "2023-09-01-preview", "2023-12-01-preview",
    "2024-02-01",         "2024-02-15-preview", "2024-03-01-preview", "2024-05-01-preview",
    "2024-06-01",         "2024-07-01-preview", "2024-08-01-preview", "2024-10-01-preview",
    "2024-10-21",         "2025-01-01-preview"};

ApiError bad_request(std::string message, std::string param = {}) {
  return {.status = 400,
          .type = "invalid_request_error",
          .code = {},
          .message = std::move(message),
          .param = std::move(param)};
}

tl::unexpected<ApiError> bad(std::string message, std::string param = {}) {
  return tl::unexpected<ApiError>(bad_request(std::move(message), std::move(param)));
}

Json null_if_empty(const std::string& text) { return text.empty() ? Json() : Json(text); }

/// The field, or nullptr when it is missing or null.
const Json* find_field(const Json& object, const char* field) {
  auto found = object.find(field);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

tl::expected<bool, ApiError> read_bool(const Json& object, const char* field, const std::string& param) {
  const Json* value = find_field(object, field);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return bad(fmt::format("'{}' must be true or false.", param), param);
  return value->get<bool>();
}

tl::expected<int64_t, ApiError> read_count(const Json& object, const char* field, int64_t fallback,
                                           int64_t min, int64_t max) {
  const Json* value = find_field(object, field);
  if (value == nullptr) return fallback;
  bool fits =
      value->is_number_integer() && (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max) {
    return bad(fmt::format("'{}' must be an integer from {} to {}.", field, min, max), field);
  }
  return value->get<int64_t>();
}

void add_text(CompletionRequest& request, const std::string& text) {
  if (!request.prompt_text.empty()) request.prompt_text += '\n';
  request.prompt_text += text;
  request.prompt_tokens += (static_cast<int64_t>(text.size()) + kBytesPerToken - 1) / kBytesPerToken;
}

bool is_token_list(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_number_integer(); });
}

/// Returns how many prompts there are.
tl::expected<int64_t, ApiError> read_prompt(const Json& body, CompletionRequest& request) {
  const Json* prompt = find_field(body, "prompt");
  if (prompt == nullptr) return bad("You must provide a 'prompt'.", "prompt");
  if (prompt->is_string()) {
    add_text(request, prompt->get_ref<const std::string&>());
    return 1;
  }
  if (is_token_list(*prompt)) {
    request.prompt_tokens += static_cast<int64_t>(prompt->size());
    return 1;
  }
  if (!prompt->is_array() || prompt->empty() || prompt->size() > kMaxChoices) {
    return bad(fmt::format("'prompt' must be a string, a list of tokens, or a list of 1 to {} of either.",
                           kMaxChoices),
               "prompt");
  }
  for (const Json& item : *prompt) {
    if (item.is_string()) {
      add_text(request, item.get_ref<const std::string&>());
    } else if (is_token_list(item)) {
      request.prompt_tokens += static_cast<int64_t>(item.size());
    } else {
      return bad("Each item of 'prompt' must be a string or a list of tokens.", "prompt");
    }
  }
  return static_cast<int64_t>(prompt->size());
}

tl::expected<void, ApiError> read_content(const Json& content, const std::string& param,
                                          CompletionRequest& request) {
  if (content.is_string()) {
    add_text(request, content.get_ref<const std::string&>());
    return {};
  }
  if (!content.is_array()) return bad(fmt::format("'{}' must be a string or a list of parts.", param), param);
  for (const Json& part : content) {
    const Json* text = part.is_object() ? find_field(part, "text") : nullptr;
    if (text == nullptr || !text->is_string()) {
      return bad(fmt::format("'{}': only parts of type 'text' are served.", param), param);
    }
    add_text(request, text->get_ref<const std::string&>());
  }
  return {};
}

tl::expected<int64_t, ApiError> read_messages(const Json& body, CompletionRequest& request) {
  const Json* messages = find_field(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return bad("'messages' must be a list of at least one message.", "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    std::string param = fmt::format("messages[{}]", i);
    const Json* role = message.is_object() ? find_field(message, "role") : nullptr;
    if (role == nullptr || !role->is_string()) {
      return bad(fmt::format("'{}' must be an object with a 'role'.", param), param);
    }
    if (const Json* content = find_field(message, "content")) {
      if (auto read = read_content(*content, param + ".content", request); !read)
        return tl::unexpected(read.error());
    }
  }
  return 1;
}

/// `stream` and what belongs to it; the replica is always asked for a stream with usage.
tl::expected<void, ApiError> read_stream(Json& body, CompletionRequest& request) {
  auto stream = read_bool(body, "stream", "stream");
  if (!stream) return tl::unexpected(stream.error());
  request.stream = *stream;
  if (const Json* options = find_field(body, "stream_options")) {
    if (!request.stream)
      return bad("'stream_options' is only allowed when 'stream' is true.", "stream_options");
    if (!options->is_object()) return bad("'stream_options' must be an object.", "stream_options");
    auto include = read_bool(*options, "include_usage", "stream_options.include_usage");
    if (!include) return tl::unexpected(include.error());
    request.include_usage = *include;
  }
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  return {};
}

}  // namespace

ApiError invalid_key(bool missing) {
  return {
      .status = 401,
      .type = "invalid_request_error",
      .code = "invalid_api_key",
      .message =
          missing
              ? "No API key was given: send it as 'Authorization: Bearer KEY' or, on the Azure routes, as "
                "'api-key: KEY'."
              : "Incorrect API key provided. Keys are made with `th key create`.",
      .param = {},
      .retry_after_ns = 0};
}

ApiError unknown_deployment(Api api, const std::string& name) {
  std::string shown = check_name(name, "deployment") ? name : "(not a valid name)";
  if (api == Api::kAzure) {
    return {.status = 404,
            .type = "invalid_request_error",
            .code = "DeploymentNotFound",
            .message = fmt::format("The API deployment '{}' for this resource does not exist.", shown),
            .param = {},
            .retry_after_ns = 0};
  }
  return {
      .status = 404,
      .type = "invalid_request_error",
      .code = "model_not_found",
      .message = fmt::format("The model '{}' does not exist: there is no deployment of this name.", shown),
      .param = "model",
      .retry_after_ns = 0};
}

ApiError unavailable(std::string code, std::string message, int64_t retry_after_ns) {
  return {.status = 503,
          .type = "server_error",
          .code = std::move(code),
          .message = std::move(message),
          .param = {},
          .retry_after_ns = retry_after_ns};
}

ApiError too_many(std::string type, std::string message, int64_t retry_after_ns) {
  return {.status = 429,
          .type = std::move(type),
          .code = "rate_limit_exceeded",
          .message = std::move(message),
          .param = {},
          .retry_after_ns = retry_after_ns};
}

std::string api_error_json(const ApiError& error) {
  return dump_json({{"error",
                     {{"message", error.message},
                      {"type", error.type},
                      {"param", null_if_empty(error.param)},
                      {"code", null_if_empty(error.code)}}}});
}

http::Response api_error_response(const ApiError& error) {
  http::Response response{.status = error.status,
                          .headers = {{"Content-Type", "application/json"}},
                          .body = api_error_json(error)};
  if (error.retry_after_ns > 0) {
    response.headers.emplace_back("Retry-After", std::to_string((error.retry_after_ns - 1) / kSecond + 1));
    response.headers.emplace_back("retry-after-ms",
                                  std::to_string((error.retry_after_ns - 1) / kMillisecond + 1));
  }
  return response;
}

http::Response refusal_response(const Error& error, int status) {
  if (status == 0) status = http::status_of(error.code);
  return api_error_response({.status = status,
                             .type = status < 500 ? "invalid_request_error" : "server_error",
                             .code = std::string(code_name(error.code)),
                             .message = error.message,
                             .param = {}});
}

Json content_filter_results(const safety::ContentFilter& filter, const safety::Verdict& verdict) {
  Json results = Json::object();
  for (size_t i = 0; i < safety::kNumCategories; ++i) {
    results[std::string(safety::category_name(static_cast<safety::Category>(i)))] = {
        {"filtered", filter.blocks(verdict.severity[i])},
        {"severity", std::string(safety::severity_name(verdict.severity[i]))}};
  }
  if (!verdict.blocklists.empty()) {
    Json details = Json::array();
    for (const std::string& name : verdict.blocklists) details.push_back({{"filtered", true}, {"id", name}});
    results["custom_blocklists"] = {{"filtered", true}, {"details", std::move(details)}};
  }
  return results;
}

http::Response content_filter_response(const safety::ContentFilter& filter, const safety::Verdict& verdict) {
  Json inner = {{"code", "ResponsibleAIPolicyViolation"},
                {"content_filter_result", content_filter_results(filter, verdict)}};
  Json body = {{"error",
                {{"message",
                  "The prompt was stopped by this deployment's content policy. Please change the prompt and "
                  "try again."},
                 {"type", "invalid_request_error"},
                 {"param", "prompt"},
                 {"code", "content_filter"},
                 {"status", 400},
                 {"innererror", std::move(inner)}}}};
  return http::json_response(body, 400);
}

std::optional<ApiError> check_api_version(const http::Request& request) {
  auto found = request.query.find("api-version");
  if (found == request.query.end() || found->second.empty()) {
    return ApiError{.status = 404,
                    .type = "invalid_request_error",
                    .code = "404",
                    .message =
                        "Resource not found: the query parameter 'api-version' is missing; add "
                        "?api-version=2024-10-21.",
                    .param = "api-version"};
  }
  if (std::find(kApiVersions.begin(), kApiVersions.end(), found->second) != kApiVersions.end())
    return std::nullopt;
  return ApiError{
      .status = 400,
      .type = "invalid_request_error",
      .code = "BadRequest",
      .message = fmt::format("API version not supported: '{}'; use 2024-10-21.", found->second.substr(0, 40)),
      .param = "api-version"};
}

tl::expected<CompletionRequest, ApiError> parse_completion_request(Endpoint endpoint, std::string_view text,
                                                                   std::string_view deployment) {
  Result<Json> parsed = parse_json(text, "request body");
  if (!parsed) return bad(parsed.error().message);
  Json& body = *parsed;
  if (!body.is_object()) return bad("The request body must be a JSON object.");
  CompletionRequest request;
  request.endpoint = endpoint;
  const Json* model = find_field(body, "model");
  if (model != nullptr && !model->is_string()) return bad("'model' must be a string.", "model");
  if (model != nullptr) request.model = model->get<std::string>();
  if (!deployment.empty()) request.model = deployment;
  if (request.model.empty()) return bad("You must provide a 'model': the name of a deployment.", "model");
  body["model"] = request.model;

  auto prompts = endpoint == Endpoint::kChat ? read_messages(body, request) : read_prompt(body, request);
  if (!prompts) return tl::unexpected(prompts.error());
  auto n = read_count(body, "n", 1, 1, kMaxChoices);
  if (!n) return tl::unexpected(n.error());
  int64_t default_tokens = endpoint == Endpoint::kChat ? kDefaultChatTokens : kDefaultMaxTokens;
  auto max_tokens = read_count(body, "max_tokens", default_tokens, 0, kMaxTokens);
  if (max_tokens) max_tokens = read_count(body, "max_completion_tokens", *max_tokens, 0, kMaxTokens);
  if (!max_tokens) return tl::unexpected(max_tokens.error());
  request.choices = *n * *prompts;
  request.estimated_tokens = request.prompt_tokens + *max_tokens * request.choices;
  if (auto read = read_stream(body, request); !read) return tl::unexpected(read.error());
  request.upstream_body = dump_json(body);
  return request;
}

}  // namespace th::gateway
