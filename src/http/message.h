#pragma once
// HTTP requests and responses as values. Beast stays behind server.h and client.h.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace th::http {

/// Names compare without case.
using Headers = std::vector<std::pair<std::string, std::string>>;
std::optional<std::string> find_header(const Headers& headers, std::string_view name);

struct Request {
  std::string method;  // "GET", upper case
  std::string path;    // decoded, without query
  std::map<std::string, std::string> query;
  Headers headers;
  std::string body;                           // whole; never over ServerOptions::max_body_bytes
  std::map<std::string, std::string> params;  // what {name} in the route's pattern matched
  std::string peer;                           // "127.0.0.1:41234"
  bool tls = false;                           // it came encrypted

  std::optional<std::string> header(std::string_view name) const { return find_header(headers, name); }
  /// The token of "Authorization: Bearer TOKEN".
  std::optional<std::string> bearer() const;
};

struct Response {
  int status = 200;
  Headers headers = {};  // Content-Length and Date are added
  std::string body = {};

  std::optional<std::string> header(std::string_view name) const { return find_header(headers, name); }
};

/// application/json.
Response json_response(const Json& body, int status = 200);
/// RFC 9457 problem details, application/problem+json:
/// {"type":"/api/v1/problems/not_found","title","status","detail","code","field"?}. `detail` is the error's
/// message, `field` what that is about where it begins with "field 'x'", "unknown field 'x'" or "query
/// parameter 'x'". `status` 0: status_of(error.code).
Response error_response(const Error& error, int status = 0);
/// How a server writes refusals; error_response, or one of an API with a form of its own.
using ErrorForm = Response (*)(const Error& error, int status);
/// The title of a code: "Not found".
std::string_view title_of(Code code);

/// invalid_argument 400, unauthenticated 401, permission_denied 403, not_found 404, already_exists 409,
/// failed_precondition 409, unsatisfiable 422, resource_exhausted 429, no_capacity and unavailable 503,
/// deadline_exceeded 504, cancelled 499, the rest 500.
int status_of(Code code);
/// The error of a response that is not 2xx: from its JSON body where it has one (problem details, or
/// {"error":{"code","message"}}), else from its status.
Error error_of(const Response& response);

}  // namespace th::http
