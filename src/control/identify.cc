// Whose a request is, and whether it may be made at all. What it may see and change: visible.h.

#include <fmt/format.h>

#include "base/text.h"
#include "control/api.h"
#include "control/api_signin.h"

namespace th::control {
namespace {

using ledger::Role;

std::string phrase_of(const std::string& tenant) {
  return tenant.empty() ? "the platform" : "tenant '" + tenant + "'";
}

/// A page of another site can make a browser send the cookie, but not this header nor our Origin.
Status check_same_site(const http::Request& request) {
  if (request.method == "GET" || request.method == "HEAD") return {};
  if (request.header("X-Th-Csrf").value_or("") != "1")
    return fail(Code::kPermissionDenied,
                "a write with the cookie th_session needs the header 'X-Th-Csrf: 1'");
  return check_origin(request);
}

Status check_need(const Need& need, const Caller& caller) {
  const std::string& tenant = caller.owner.account;
  if (caller.role >= need.role && (!need.platform || tenant.empty())) return {};
  return fail(Code::kPermissionDenied,
              fmt::format("'{}' is {} of {}, and this takes the role {}{}", caller.owner.user,
                          name_of(caller.role), phrase_of(tenant), name_of(need.role),
                          need.platform ? " of the platform: the operator's admin key has it" : ""));
}

}  // namespace

std::optional<std::string> cookie_of(const http::Request& request, std::string_view name) {
  const std::string cookies = request.header("Cookie").value_or("");
  for (const std::string& part : split(cookies, ';')) {
    const std::string_view cookie =
        std::string_view(part).substr(std::min(part.find_first_not_of(' '), part.size()));
    if (cookie.starts_with(name) && cookie.substr(name.size()).starts_with('='))
      return std::string(cookie.substr(name.size() + 1));
  }
  return std::nullopt;
}

std::optional<std::string> session_of(const http::Request& request) {
  return cookie_of(request, "th_session");
}

Status check_origin(const http::Request& request) {
  const auto origin = request.header("Origin");
  if (!origin) return {};
  const size_t scheme = origin->find("://");
  const std::string host = request.header("Host").value_or("");
  if (scheme != std::string::npos && !host.empty() && origin->substr(scheme + 3) == host) return {};
  return fail(Code::kPermissionDenied, "this comes from a page of another site (Origin)");
}

Status identify(Controller& c, const Need& need, const http::Request& request,
                const std::string& gateway_token_sha256, Caller& caller) {
  caller = {};
  caller.peer = request.peer;
  // Nor does another site's page sign anybody in.
  if (need.by == Need::By::kAnyone) return request.method == "GET" ? Status() : check_origin(request);
  auto token = request.bearer();
  if (!token) token = request.header("api-key");
  const bool by_cookie = !token;
  if (by_cookie) token = session_of(request);
  if (!token) return fail(Code::kUnauthenticated, "no key: send 'Authorization: Bearer KEY', or sign in");
  if (need.by == Need::By::kGateway) {
    if (equal_secret(sha256_hex(*token), gateway_token_sha256)) return {};
    return fail(Code::kUnauthenticated, "wrong gateway token");
  }
  // A batch script speaks for who submitted it, about jobs, while it runs.
  if (!by_cookie && request.path.starts_with("/api/v1/jobs")) {
    if (const std::string job = c.core.job_of_key(*token); !job.empty()) {
      caller.owner = c.core.state().jobs.at(job).owner;
      caller.owner.account = account_of(caller.owner);
      caller.role = Role::kMember, caller.key = job;
      return check_need(need, caller);
    }
  }
  const ledger::Key* key = c.access.find_key(*token);
  if (key && key->has_scope(ledger::kScopeConsole) != by_cookie) key = nullptr;
  if (!key) return fail(Code::kUnauthenticated, "wrong, expired or revoked key");
  caller.owner.account = key->tenant, caller.owner.user = key->name;
  caller.user = key->user, caller.key = key->id, caller.role = c.access.role_of(*key);
  if (!key->user.empty()) caller.owner.user = c.core.state().users.at(key->user).login;
  if (caller.role == Role::kNone)
    return fail(Code::kUnauthenticated, "the user of this key has no role any more");
  if (!by_cookie && !key->has_scope(ledger::kScopeApi))
    return fail(Code::kPermissionDenied, fmt::format("key '{}' is for inference only", key->name));
  if (by_cookie) TH_RETURN_IF_ERROR(check_same_site(request));
  c.access.used(key->id, c.core.now_ns());
  return check_need(need, caller);
}

}  // namespace th::control
