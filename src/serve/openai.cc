#include "serve/openai.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "serve/json_fields.h"

namespace th::serve {
namespace {

constexpr size_t kMaxStops = 4;
constexpr size_t kMaxStopBytes = 256;
constexpr int64_t kMaxTokens = int64_t{1} << 31;

// Both endpoints; those in the second row are taken and have no effect here.
constexpr std::array kCommonFields = {"model",
                                      "stream",
                                      "stream_options",
                                      "max_tokens",
                                      "temperature",
                                      "top_p",
                                      "top_k",
                                      "n",
                                      "stop",
                                      "presence_penalty",
                                      "frequency_penalty",
                                      "seed",
                                      "logit_bias",
                                      "logprobs",
                                      "user",
                                      "metadata",
                                      "store",
                                      "service_tier",
                                      "safety_identifier"};
constexpr std::array kCompletionFields = {"prompt", "suffix", "echo", "best_of"};
constexpr std::array kChatFields = {
    "messages",  "max_completion_tokens", "top_logprobs",        "response_format", "tools", "tool_choice",
    "functions", "function_call",         "parallel_tool_calls", "modalities"};

void check_names(JsonFields& fields, Endpoint endpoint, const Json& object) {
  const auto has = [](const auto& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const auto& [name, value] : object.items()) {
    const bool own = endpoint == Endpoint::kChat ? has(kChatFields, name) : has(kCompletionFields, name);
    if (!own && !has(kCommonFields, name)) {
      fields.refuse(name, "unknown_parameter", "Unrecognized request argument supplied: " + name);
    }
  }
}

// What is not supported must say what it would be without the field.
void check_unsupported(JsonFields& fields, Endpoint endpoint) {
  const auto one = [&](const char* name) {
    if (fields.integer(name, 1, 128).value_or(1) != 1) {
      fields.refuse(name, "unsupported_value", fmt::format("Unsupported value: '{}' must be 1.", name));
    }
  };
  one("n");
  fields.only_empty("logit_bias");
  fields.only_false("logprobs");
  if (endpoint == Endpoint::kCompletions) {
    one("best_of");
    fields.only_false("echo");
    fields.only_empty("suffix");
    return;
  }
  if (fields.integer("top_logprobs", 0, 20).value_or(0) != 0) {
    fields.refuse("top_logprobs", "unsupported_value", "Unsupported value: 'top_logprobs' must be 0.");
  }
  fields.only_empty("tools");
  fields.only_empty("functions");
  for (const char* name : {"tool_choice", "function_call"}) {
    const Json* choice = fields.find(name);
    if (choice != nullptr && *choice != "none" && *choice != "auto") {
      fields.refuse(name, "unsupported_value", fmt::format("Unsupported value: '{}' must be 'none'.", name));
    }
  }
  const Json* format = fields.find("response_format");
  if (format != nullptr && *format != Json{{"type", "text"}}) {
    fields.refuse("response_format", "unsupported_value",
                  "Unsupported value: 'response_format' must be {\"type\":\"text\"}.");
  }
  const Json* modalities = fields.find("modalities");
  if (modalities != nullptr && *modalities != Json::array({"text"})) {
    fields.refuse("modalities", "unsupported_value", "Unsupported value: 'modalities' must be [\"text\"].");
  }
}

std::vector<std::string> read_stop(JsonFields& fields) {
  std::vector<std::string> stops;
  const Json* value = fields.find("stop");
  if (value == nullptr) return stops;
  const Json list = value->is_string() ? Json::array({*value}) : *value;
  if (!list.is_array()) {
    fields.wrong_type("stop", "a string or an array of strings", *value);
    return stops;
  }
  if (list.size() > kMaxStops) {
    fields.refuse(
        "stop", "array_above_max_length",
        fmt::format("Invalid 'stop': array too long. Expected at most {} strings, but got {} instead.",
                    kMaxStops, list.size()));
  }
  for (const Json& stop : list) {
    if (!stop.is_string()) {
      fields.wrong_type("stop", "an array of strings", stop);
      return {};
    }
    stops.push_back(stop.get<std::string>());
    if (stops.back().empty() || stops.back().size() > kMaxStopBytes) {
      fields.refuse("stop", "invalid_value",
                    fmt::format("Invalid 'stop': want strings of 1 to {} bytes, but got one of {}.",
                                kMaxStopBytes, stops.back().size()));
    }
  }
  return stops;
}

// A text, or one text or one list of token numbers in an array, or the numbers themselves.
void read_prompt(JsonFields& fields, ApiRequest& out) {
  const Json* value = fields.required("prompt");
  if (value == nullptr) return;
  if (value->is_array() && value->size() == 1 && !value->front().is_number()) value = &value->front();
  if (value->is_string()) {
    out.prompt = value->get<std::string>();
    return;
  }
  if (!value->is_array()) return fields.wrong_type("prompt", "a string or an array of token numbers", *value);
  std::vector<int32_t> tokens;
  for (const Json& token : *value) {
    if (token.is_string() || token.is_array()) {
      return fields.refuse(
          "prompt", "unsupported_value",
          fmt::format("Unsupported value: 'prompt' must hold one prompt, but has {}. Send one request "
                      "for each.",
                      value->size()));
    }
    if (!token.is_number_integer()) return fields.wrong_type("prompt", "an array of token numbers", token);
    if (token.is_number_unsigned() ? token.get<uint64_t>() > INT32_MAX : token.get<int64_t>() < 0) {
      return fields.refuse("prompt", "invalid_value",
                           fmt::format("Invalid 'prompt': {} is not a token.", token.dump()));
    }
    tokens.push_back(token.get<int32_t>());
  }
  if (tokens.empty()) {
    return fields.refuse("prompt", "empty_array", "Invalid 'prompt': empty array. Send at least one token.");
  }
  out.prompt = std::move(tokens);
}

// The content of a message: a text, or an array of text parts.
std::optional<std::string> read_content(JsonFields& fields, const std::string& where, const Json& message) {
  const auto found = message.find("content");
  if (found == message.end() || found->is_null()) {
    fields.refuse(where + ".content", "missing_required_parameter",
                  fmt::format("Missing required parameter: '{}.content'.", where));
    return std::nullopt;
  }
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) {
    fields.wrong_type(where + ".content", "a string or an array of parts", *found);
    return std::nullopt;
  }
  std::string text;
  for (const Json& part : *found) {
    const bool is_text = part.is_object() && part.value("type", Json()) == "text" && part.contains("text") &&
                         part.at("text").is_string();
    if (!is_text) {
      fields.refuse(
          where + ".content", "unsupported_value",
          fmt::format("Unsupported value: '{}.content' may only have parts {{\"type\":\"text\",\"text\":…}}.",
                      where));
      return std::nullopt;
    }
    text += part.at("text").get<std::string>();
  }
  return text;
}

void read_messages(JsonFields& fields, ApiRequest& out) {
  const Json* value = fields.required("messages");
  if (value == nullptr) return;
  if (!value->is_array()) return fields.wrong_type("messages", "an array of objects", *value);
  if (value->empty()) {
    return fields.refuse("messages", "empty_array",
                         "Invalid 'messages': empty array. Expected an array with at least one message.");
  }
  std::vector<ChatMessage> messages;
  for (const Json& message : *value) {
    const std::string where = fmt::format("messages[{}]", messages.size());
    if (!message.is_object()) return fields.wrong_type(where, "an object", message);
    const auto role = message.find("role");
    static constexpr std::array kRoles = {"system", "developer", "user", "assistant"};
    if (role == message.end() || !role->is_string() ||
        std::find(kRoles.begin(), kRoles.end(), role->get<std::string>()) == kRoles.end()) {
      return fields.refuse(
          where + ".role", "invalid_value",
          fmt::format("Invalid value for '{}.role': supported are 'system', 'developer', 'user' and "
                      "'assistant'.",
                      where));
    }
    std::optional<std::string> content = read_content(fields, where, message);
    if (!content) return;
    messages.push_back({role->get<std::string>(), *std::move(content)});
  }
  out.prompt = std::move(messages);
}

void read_stream(JsonFields& fields, ApiRequest& out) {
  out.stream = fields.boolean("stream").value_or(false);
  const Json* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return fields.wrong_type("stream_options", "an object", *options);
  if (!out.stream) {
    return fields.refuse("stream_options", "invalid_value",
                         "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
  }
  for (const auto& [name, value] : options->items()) {
    if (name != "include_usage" && name != "include_obfuscation") {
      return fields.refuse("stream_options." + name, "unknown_parameter",
                           "Unrecognized request argument supplied: stream_options." + name);
    }
    if (!value.is_boolean() && !value.is_null()) {
      return fields.wrong_type("stream_options." + name, "true or false", value);
    }
  }
  out.include_usage = options->value("include_usage", Json()) == true;
}

void read_sampling(JsonFields& fields, SamplingParams& out) {
  out.temperature = fields.number("temperature", 0, 2).value_or(1);
  out.top_p = fields.number("top_p", 0, 1).value_or(1);
  out.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, INT32_MAX).value_or(0));
  out.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  out.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
}

}  // namespace

ApiResult<ApiRequest> parse_request(Endpoint endpoint, std::string_view body) {
  const Result<Json> json = parse_json(body, "the body");
  if (!json || !json->is_object()) {
    const std::string why = json ? std::string("it is not an object") : json.error().message;
    return tl::unexpected(ApiError{.message = "We could not parse the JSON body of your request: " + why});
  }
  JsonFields fields(*json);
  ApiRequest out;
  check_names(fields, endpoint, *json);
  out.model = fields.string("model").value_or("");
  if (endpoint == Endpoint::kChat) {
    read_messages(fields, out);
  } else {
    read_prompt(fields, out);
  }
  out.max_tokens = fields.integer("max_tokens", 1, kMaxTokens);
  if (const auto newer = fields.integer("max_completion_tokens", 1, kMaxTokens)) out.max_tokens = newer;
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX)) out.seed = static_cast<uint64_t>(*seed);
  read_sampling(fields, out.sampling);
  out.stop = read_stop(fields);
  read_stream(fields, out);
  check_unsupported(fields, endpoint);
  if (fields.error()) return tl::unexpected(*fields.error());
  return out;
}

http::Response api_error_response(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  http::Response response = http::json_response({{"error",
                                                  {{"message", error.message},
                                                   {"type", error.type},
                                                   {"param", or_null(error.param)},
                                                   {"code", or_null(error.code)}}}},
                                                error.status);
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

http::Response refusal_response(const Error& error, int status) {
  if (status == 0) status = http::status_of(error.code);
  return api_error_response({.status = status,
                             .message = error.message,
                             .type = status < 500 ? "invalid_request_error" : "server_error",
                             .code = std::string(code_name(error.code))});
}

}  // namespace th::serve
