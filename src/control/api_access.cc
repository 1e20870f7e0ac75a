// Routes of sessions and keys.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"
#include "control/access_fields.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/api_signin.h"
#include "control/views.h"

namespace th::control {
namespace {

using ledger::Role;

/// Where the gateway of this state folder listens, if one does.
Json gateway_url(const Controller& c) {
  const auto text = read_file(c.core.state_dir() / "gateway.json", 4096);
  const auto json = text ? parse_json(*text, "gateway.json") : fail(text.error());
  return json && json->is_object() && json->contains("url") ? (*json)["url"] : Json(nullptr);
}

Json session_json(const Controller& c, const ledger::Key& key) {
  const auto user = c.core.state().users.find(key.user);
  const std::string name = user == c.core.state().users.end() ? key.name : user->second.login;
  return {{"user", key.user.empty() ? Json(nullptr) : Json(key.user)},
          {"name", name},
          {"role", name_of(c.access.role_of(key))},
          {"tenant", key.tenant},
          {"scopes", key.scopes},
          {"expires_ns", null_if(key.expires_ns, 0)},
          {"key", key.id},
          {"gateway_url", gateway_url(c)}};
}

std::string cookie(const std::string& secret, int64_t max_age_s, bool over_tls) {
  return fmt::format("th_session={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{}", secret, max_age_s,
                     over_tls ? "; Secure" : "");
}

}  // namespace

Result<Answer> begin_session(Controller& c, const http::Request& request, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"key"}));
  TH_TRY(const std::string secret, get_string(body, "key"));
  const ledger::Key* key = c.access.find_key(secret);
  if (!key || key->has_scope(ledger::kScopeConsole) || c.access.role_of(*key) == Role::kNone)
    return fail(Code::kUnauthenticated, "wrong, expired or revoked key");
  if (!key->has_scope(ledger::kScopeApi))
    return fail(Code::kPermissionDenied, fmt::format("key '{}' is for inference only", key->name));
  return session_answer(c, c.access.sign_in(*key), request.tls);
}

namespace {

Result<Answer> end_session(Controller& c, const http::Request& request, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {}));
  const auto key = c.core.state().keys.find(c.core.who().key);
  if (key == c.core.state().keys.end() || !key->second.has_scope(ledger::kScopeConsole))
    return fail(Code::kFailedPrecondition, "this is a key and no session: th key revoke ends it");
  c.access.revoke(key->first);
  Answer answer(Json{{"ended", true}});
  answer.headers = {{"Set-Cookie", cookie("", 0, request.tls)}};
  return answer;
}

Result<std::vector<std::string>> read_scopes(const Json& body) {
  if (!body.contains("scopes")) return std::vector<std::string>{ledger::kScopeApi, ledger::kScopeInference};
  std::vector<std::string> out;
  const Json& scopes = body["scopes"];
  for (const Json& scope : scopes.is_array() ? scopes : Json::array()) {
    const bool known = scope == ledger::kScopeApi || scope == ledger::kScopeInference;
    if (!known) return fail(Code::kInvalidArgument, "field 'scopes': want a list of 'api' and 'inference'");
    if (std::ranges::find(out, scope.get<std::string>()) == out.end())
      out.push_back(scope.get<std::string>());
  }
  if (out.empty()) return fail(Code::kInvalidArgument, "field 'scopes': want 'api', 'inference' or both");
  return out;
}

Result<Answer> create_key(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(
      check_fields(body, {"name", "account", "tenant", "role", "scopes", "expires_ns", "tokens_per_minute"}));
  Access::NewKey key;
  TH_TRY(key.name, get_name(body, "key name"));
  if (key.name == "admin" || c.access.find_user(key.name))
    return fail(Code::kAlreadyExists,
                fmt::format("'{}' is the name of a user; name the key otherwise", key.name));
  const char* field = body.contains("account") ? "account" : "tenant";
  TH_TRY(key.tenant, read_tenant(c, body, field, account_of(c.core.caller())));
  TH_TRY(key.role, read_role(c, body, "member"));
  TH_TRY(key.scopes, read_scopes(body));
  TH_TRY(key.expires_ns, read_expiry(c, body, 0));
  TH_TRY(key.tokens_per_minute, read_amount(body, "tokens_per_minute", 0));
  const Access::Secret made = c.access.make_key(key);
  // The ledger never holds a secret, so a repeat cannot show it again.
  Json answer = {{"id", made.id}, {"name", key.name}, {"key", nullptr}};
  answer.update(key_json(c, c.core.state().keys.at(made.id)));
  const std::string stored = dump_json(answer);
  answer["key"] = made.secret;
  return Answer(answer, stored);
}

Result<Answer> revoke_key(Controller& c, const std::string& id) {
  const auto key = c.core.state().keys.find(id);
  if (key == c.core.state().keys.end() || !is_within_caller(c, key->second.tenant))
    return fail(Code::kNotFound, "key '" + id + "' does not exist; th key list shows those that do");
  if (c.access.role_of(key->second) > c.core.who().role)
    return fail(Code::kPermissionDenied, "key '" + id + "' may more than you");
  if (key->second.of_operator)
    return fail(Code::kFailedPrecondition, "key '" + id + "' is the admin key; it cannot be revoked");
  c.access.revoke(id);
  Answer answer(key_json(c, key->second));
  answer.ends_keys = true;
  return answer;
}

}  // namespace

Answer session_answer(Controller& c, const Access::Secret& session, bool over_tls) {
  const ledger::Key& key = c.core.state().keys.at(session.id);
  Answer answer(session_json(c, key));
  answer.headers = {
      {"Set-Cookie", cookie(session.secret, (key.expires_ns - c.core.now_ns()) / kSecond, over_tls)}};
  return answer;
}

Json key_json(const Controller& c, const ledger::Key& key) {
  return {{"id", key.id},
          {"name", key.name},
          {"role", name_of(c.access.role_of(key))},
          {"tenant", key.tenant},
          {"account", key.tenant},
          {"user", key.user.empty() ? Json(nullptr) : Json(key.user)},
          {"scopes", key.scopes},
          {"tokens_per_minute", key.tokens_per_minute},
          {"created_ns", key.created_ns},
          {"expires_ns", null_if(key.expires_ns, 0)},
          {"last_used_ns", null_if(key.last_used_ns, 0)},
          {"revoked", key.revoked}};
}

void Api::add_session_routes(http::Router& router) {
  read(router, "/api/v1/session", [](Controller& c, const http::Request&) -> Result<Json> {
    const auto key = c.core.state().keys.find(c.core.who().key);
    if (key == c.core.state().keys.end()) return fail(Code::kUnauthenticated, "not signed in");
    return session_json(c, key->second);
  });
  write(router, "DELETE", "/api/v1/session", kViewer,
        [](Controller& c, const http::Request& request, const Json& body) {
          return end_session(c, request, body);
        });
}

void Api::add_key_routes(http::Router& router) {
  write(router, "POST", "/api/v1/keys", kAdmin,
        [](Controller& c, const http::Request&, const Json& body) { return create_key(c, body); });
  read(
      router, "/api/v1/keys",
      [](Controller& c, const http::Request& request) {
        return list_json(request, c.core.state().keys, [&c](const std::string&, const ledger::Key& key) {
          const bool ended_session = key.has_scope(ledger::kScopeConsole) && !key.valid_at(c.core.now_ns());
          return is_within_caller(c, key.tenant) && !ended_session ? key_json(c, key) : Json();
        });
      },
      kAdmin);
  write(router, "DELETE", "/api/v1/keys/{id}", kAdmin,
        [](Controller& c, const http::Request& request, const Json&) {
          return revoke_key(c, request.params.at("id"));
        });
}

}  // namespace th::control
