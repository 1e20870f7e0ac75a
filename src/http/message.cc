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

std::string_view field_of(std::string_view message) {
  for (const std::string_view about :
       {"field '", "unknown field '", "body: unknown field '", "query parameter '"}) {
    if (!message.starts_with(about)) continue;
    message.remove_prefix(about.size());
    return message.substr(0, message.find('\''));
  }
  return {};
}

/// `code` where it is one of ours; OpenAI-style bodies may carry their own, and the status says what kind it
/// is.
Code known_code(const std::string& code, int status) {
  return !code.empty() && code_name(code_from_name(code)) == code ? code_from_name(code) : code_of(status);
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

std::string_view title_of(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "The input is wrong";
    case Code::kNotFound:
      return "Not found";
    case Code::kAlreadyExists:
      return "The name is taken";
    case Code::kFailedPrecondition:
      return "Not possible in this state";
    case Code::kUnsatisfiable:
      return "Impossible on this fleet";
    case Code::kResourceExhausted:
      return "A limit is reached";
    case Code::kNoCapacity:
      return "The cloud has no capacity";
    case Code::kUnauthenticated:
      return "No valid key";
    case Code::kPermissionDenied:
      return "Not allowed";
    case Code::kUnavailable:
      return "Unavailable";
    case Code::kDeadlineExceeded:
      return "Took too long";
    case Code::kCancelled:
      return "Cancelled";
    case Code::kDataLoss:
      return "Stored data are damaged";
    case Code::kNoSpace:
      return "The disk is full";
    case Code::kInternal:
      return "Internal error";
  }
  return "Internal error";
}

Response error_response(const Error& error, int status) {
  if (status == 0) status = status_of(error.code);
  const std::string code(code_name(error.code));
  Json body = {{"type", "/api/v1/problems/" + code},
               {"title", title_of(error.code)},
               {"status", status},
               {"detail", error.message},
               {"code", code}};
  if (const std::string_view field = field_of(error.message); !field.empty()) body["field"] = field;
  return Response{status, {{"Content-Type", "application/problem+json"}}, dump_json(body)};
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
    const auto nested = body->find("error");
    const bool problem = nested == body->end() || !nested->is_object();
    const Json& error = problem ? *body : *nested;
    const auto message = get_string(error, problem ? "detail" : "message", "");
    const auto code = get_string(error, "code", "");
    if (message && (!problem || !message->empty()))
      return Error{known_code(code.value_or(""), response.status), *message};
  }
  return Error{.code = code_of(response.status), .message = fmt::format("HTTP status {}", response.status)};
}

}  // namespace th::http
