#include "http/message.h"

#include <fmt/format.h>
#include <strings.h>

#include <nlohmann/json.hpp>

namespace th::http {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

Code code_of(int status) {
  switch (status) {
    case 400:
    case 405:
    case 413:
    case 431:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kFailedPrecondition;
    case 422:
      return Code::kUnsatisfiable;
    case 429:
      return Code::kResourceExhausted;
    case 499:
      return Code::kCancelled;
    case 502:
    case 503:
      return Code::kUnavailable;
    case 408:
    case 504:
      return Code::kDeadlineExceeded;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::optional<std::string> find_header(const Headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (same_name(key, name)) return value;
  }
  return std::nullopt;
}

std::optional<std::string> Request::bearer() const {
  auto value = header("Authorization");
  if (!value || value->size() < 7 || !same_name(std::string_view(*value).substr(0, 7), "Bearer "))
    return std::nullopt;
  std::string_view token = std::string_view(*value).substr(7);
  while (token.starts_with(' ')) token.remove_prefix(1);
  while (token.ends_with(' ')) token.remove_suffix(1);
  if (token.empty()) return std::nullopt;
  return std::string(token);
}

Response json_response(const Json& body, int status) {
  return Response{
      .status = status, .headers = {{"Content-Type", "application/json"}}, .body = dump_json(body)};
}

Response error_response(const Error& error) {
  return json_response(error_json(error), status_of(error.code));
}

int status_of(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
      return 409;
    case Code::kUnsatisfiable:
      return 422;
    case Code::kResourceExhausted:
      return 429;
    case Code::kCancelled:
      return 499;
    case Code::kNoCapacity:
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kDataLoss:
    case Code::kNoSpace:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

Error error_of(const Response& response) {
  auto body = parse_json(response.body, "error body");
  if (body && body->is_object()) {
    auto error = body->find("error");
    if (error != body->end() && error->is_object()) {
      auto message = get_string(*error, "message", "");
      auto code = get_string(*error, "code", "");
      // OpenAI-style bodies may carry codes of their own; the status then says what kind it is.
      bool known = code && !code->empty() && code_name(code_from_name(*code)) == *code;
      if (message) {
        return Error{.code = known ? code_from_name(*code) : code_of(response.status), .message = *message};
      }
    }
  }
  return Error{.code = code_of(response.status), .message = fmt::format("HTTP status {}", response.status)};
}

}  // namespace th::http
