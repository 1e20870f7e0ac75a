// Routes of tenants and users, and the code with which who forgot the password sets another.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "control/access_fields.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/api_signin.h"
#include "control/views.h"

namespace th::control {
namespace {

using ledger::Role;
using ledger::User;

constexpr int64_t kMaxShares = 1'000'000;
constexpr int64_t kResetNs = kDay, kMaxResetNs = 7 * kDay;

Json tenant_json(const Controller& c, const reserve::AccountSpec& account) {
  const auto made = c.core.state().tenants.find(account.name);
  const bool by_api = !c.core.is_of_policy(account.name) && made != c.core.state().tenants.end();
  return {{"name", account.name},
          {"parent", account.parent == reserve::kRootAccount ? "" : account.parent},
          {"kind", by_api ? made->second.created.kind : "tenant"},
          {"max_gpus", account.max_gpus ? Json(*account.max_gpus) : Json(nullptr)},
          {"budget_microusd", account.budget_microusd ? Json(*account.budget_microusd) : Json(nullptr)},
          {"shares", account.shares},
          {"made_by", by_api ? "api" : "policy"},
          {"removed", by_api && made->second.removed}};
}

Result<int64_t> read_shares(const Json& body, int64_t fallback) {
  TH_TRY(const int64_t shares, body.contains("shares") ? read_amount(body, "shares", 0) : fallback);
  if (shares >= 1 && shares <= kMaxShares) return shares;
  return fail(Code::kInvalidArgument, fmt::format("field 'shares': want 1 to {}", kMaxShares));
}

Result<Answer> create_tenant(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "parent", "kind", "max_gpus", "budget_microusd", "shares"}));
  ledger::TenantCreated made;
  TH_TRY(made.tenant, get_string(body, "name"));
  TH_RETURN_IF_ERROR(check_name(made.tenant, "tenant"));
  TH_TRY(made.kind, get_string(body, "kind", std::string("tenant")));
  if (made.kind != "tenant" && made.kind != "project")
    return fail(Code::kInvalidArgument, "field 'kind': want 'tenant' or 'project'");
  TH_TRY(made.parent, read_tenant(c, body, "parent", c.core.caller().account));
  const auto above = c.core.state().tenants.find(made.parent);
  if (above != c.core.state().tenants.end() && above->second.created.kind == "project")
    return fail(Code::kFailedPrecondition,
                fmt::format("'{}' is a project: it has none below it", made.parent));
  TH_TRY(made.max_gpus, read_amount(body, "max_gpus", -1));
  TH_TRY(made.budget_microusd, read_amount(body, "budget_microusd", -1));
  TH_TRY(made.shares, read_shares(body, 1));
  if (made.tenant == reserve::kRootAccount || c.core.policy().find_account(made.tenant))
    return fail(Code::kAlreadyExists,
                fmt::format("the name '{}' is not free: all tenants have different names; choose another",
                            made.tenant));
  c.core.stage(made);
  return Answer(tenant_json(c, *c.core.policy().find_account(made.tenant)));
}

/// One that was made by API, for a caller that is above it.
Result<const ledger::Tenant*> find_tenant(const Controller& c, const std::string& name) {
  const auto made = c.core.state().tenants.find(name);
  const bool known = c.core.policy().find_account(name) && is_within_caller(c, name);
  const bool is_given = c.core.is_of_policy(name);
  if (!known || (!is_given && made != c.core.state().tenants.end() && made->second.removed))
    return fail(Code::kNotFound,
                fmt::format("there is no tenant '{}'; th tenant list shows those that are", name));
  if (is_given)
    return fail(Code::kFailedPrecondition,
                fmt::format("tenant '{}' is of policy.yaml; change it there", name));
  if (name == c.core.caller().account)
    return fail(Code::kPermissionDenied, "an admin of a tenant above it does that");
  return &made->second;
}

/// What is left out stays.
Result<Answer> change_tenant(Controller& c, const std::string& name, const Json& body) {
  TH_TRY(const ledger::Tenant* tenant, find_tenant(c, name));
  TH_RETURN_IF_ERROR(check_fields(body, {"max_gpus", "budget_microusd", "shares"}));
  if (body.empty())
    return fail(Code::kInvalidArgument, "body: want 'max_gpus', 'budget_microusd', 'shares', or several");
  const ledger::TenantCreated& now = tenant->created;
  ledger::TenantChanged changed{name, now.max_gpus, now.budget_microusd, now.shares};
  if (body.contains("max_gpus")) {
    TH_TRY(changed.max_gpus, read_amount(body, "max_gpus", -1));
  }
  if (body.contains("budget_microusd")) {
    TH_TRY(changed.budget_microusd, read_amount(body, "budget_microusd", -1));
  }
  TH_TRY(changed.shares, read_shares(body, now.shares));
  c.core.stage(changed);
  return Answer(tenant_json(c, *c.core.policy().find_account(name)));
}

/// What is left in the tenant; empty: nothing.
std::string left_in(const Controller& c, const std::string& tenant) {
  for (const reserve::AccountSpec& below : c.core.policy().accounts) {
    const auto made = c.core.state().tenants.find(below.name);
    const bool removed = made != c.core.state().tenants.end() && made->second.removed;
    if (below.parent == tenant && !removed) return "tenant " + below.name;
  }
  for (const auto& [id, slice] : c.core.state().slices) {
    if (slice.live() && account_of(slice.owner) == tenant) return "slice " + slice.terms.name;
  }
  for (const auto& [id, job] : c.core.state().jobs) {
    if (!job.ended() && account_of(job.owner) == tenant) return id;
  }
  return {};
}

Result<Answer> remove_tenant(Controller& c, const std::string& name) {
  if (const auto found = find_tenant(c, name); !found) return fail(found.error());
  if (const std::string left = left_in(c, name); !left.empty())
    return fail(Code::kFailedPrecondition,
                fmt::format("tenant '{}' still has {}; end that first", name, left));
  Answer answer(tenant_json(c, *c.core.policy().find_account(name)));
  std::vector<std::string> keys, invitations, users;
  for (const auto& [id, key] : c.core.state().keys) {
    if (key.tenant == name && !key.revoked) keys.push_back(id);
  }
  for (const auto& [id, invitation] : c.core.state().invitations) {
    if (invitation.made.tenant == name && invitation.open_at(c.core.now_ns())) invitations.push_back(id);
  }
  for (const auto& [id, user] : c.core.state().users) {
    if (user.roles.count(name)) users.push_back(id);
  }
  for (const std::string& id : keys) c.access.revoke(id);
  for (const std::string& id : invitations) c.core.stage(ledger::InvitationRevoked{id});
  for (const std::string& id : users) c.core.stage(ledger::RoleGranted{id, name, ""});
  c.core.stage(ledger::TenantRemoved{name});
  answer.ends_keys = true;
  return answer;
}

/// With the roles that the caller may know of; null: it knows of none.
Json user_json(const Controller& c, const User& user) {
  Json roles = Json::array();
  for (const auto& [tenant, role] : user.roles) {
    if (is_within_caller(c, tenant)) roles.push_back({{"tenant", tenant}, {"role", name_of(role)}});
  }
  if (roles.empty() && !c.core.caller().account.empty()) return nullptr;
  return {{"id", user.id},
          {"name", user.login},
          {"roles", std::move(roles)},
          {"created_ns", user.created_ns},
          {"removed", user.removed}};
}

Result<const User*> find_user(const Controller& c, const std::string& name) {
  const auto by_id = c.core.state().users.find(name);
  const User* user = by_id == c.core.state().users.end() ? c.access.find_user(name) : &by_id->second;
  if (user && !user->removed && !user_json(c, *user).is_null()) return user;
  return fail(Code::kNotFound, fmt::format("there is no user '{}'; th user list shows those that are", name));
}

/// Keys and sessions of the user in the tenants that the caller is above of.
void revoke_keys(Controller& c, const std::string& user) {
  std::vector<std::string> keys;
  for (const auto& [id, key] : c.core.state().keys) {
    if (key.user == user && !key.revoked && is_within_caller(c, key.tenant)) keys.push_back(id);
  }
  for (const std::string& id : keys) c.access.revoke(id);
}

Result<Answer> set_role(Controller& c, const std::string& name, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"tenant", "role"}));
  TH_TRY(const User* user, find_user(c, name));
  TH_TRY(const std::string tenant, read_tenant(c, body, "tenant", c.core.caller().account));
  const bool none = !body.contains("role") || body["role"].is_null();
  Role role = Role::kNone;
  if (!none) {
    TH_TRY(role, read_role(c, body, ""));
  }
  const std::string id = user->id;
  c.core.stage(ledger::RoleGranted{id, tenant, none ? "" : std::string(name_of(role))});
  std::vector<std::string> void_keys;  // a key without any role would come alive with the next one
  for (const auto& [key_id, key] : c.core.state().keys) {
    if (key.user == id && !key.revoked && c.access.role_of(key) == Role::kNone) void_keys.push_back(key_id);
  }
  for (const std::string& key : void_keys) c.access.revoke(key);
  Json told = user_json(c, c.core.state().users.at(id));
  Answer answer(told.is_null() ? Json{{"id", id}, {"roles", Json::array()}} : told);
  answer.ends_keys = !void_keys.empty();
  return answer;
}

/// Out of all that the caller is above of; who has a role elsewhere stays there.
Result<Answer> remove_user(Controller& c, const std::string& name) {
  TH_TRY(const User* user, find_user(c, name));
  const std::string id = user->id;
  const std::map<std::string, Role> roles = user->roles;
  const auto elsewhere = [&](const auto& item) { return !is_within_caller(c, item.first); };
  const bool all = std::ranges::none_of(roles, elsewhere);
  Answer answer(user_json(c, *user));
  for (const auto& [tenant, role] : roles) {
    if (is_within_caller(c, tenant)) c.core.stage(ledger::RoleGranted{id, tenant, ""});
  }
  revoke_keys(c, id);
  if (all) c.core.stage(ledger::UserRemoved{id});
  answer.ends_keys = true;
  return answer;
}

/// Whoever takes the code has all that the user has.
Result<Answer> make_reset(Controller& c, const std::string& name, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"expires_ns"}));
  TH_TRY(const User* user, find_user(c, name));
  const auto beyond = [&](const auto& item) {
    return !is_within_caller(c, item.first) || item.second > c.core.who().role;
  };
  if (std::ranges::any_of(user->roles, beyond))
    return fail(Code::kPermissionDenied,
                fmt::format("user '{}' may more than you; an admin of the tenants above can do it", name));
  ledger::PasswordResetMade made{user->id, "", c.core.caller().user, 0};
  TH_TRY(made.expires_ns, read_expiry(c, body, c.core.now_ns() + kResetNs));
  if (made.expires_ns > c.core.now_ns() + kMaxResetNs)
    return fail(Code::kInvalidArgument, "field 'expires_ns': the code is good for 7 days at most");
  const std::string code = c.core.token();
  made.code_sha256 = sha256_hex(code);
  Json answer = {{"user", user->id}, {"name", user->login}, {"expires_ns", made.expires_ns}};
  c.core.stage(made);
  answer["code"] = nullptr, answer["link"] = nullptr;
  const std::string stored = dump_json(answer);
  answer["code"] = code, answer["link"] = "/#reset=" + code;
  return Answer(answer, stored);
}

}  // namespace

const User* user_of_reset(const Controller& c, const std::string& code) {
  const std::string sha256 = sha256_hex(code);
  for (const auto& [user, made] : c.core.state().credentials.resets) {
    if (equal_secret(made.code_sha256, sha256) && c.core.now_ns() < made.expires_ns)
      return &c.core.state().users.at(user);
  }
  return nullptr;
}

Result<Answer> answer_reset(Controller& c, const http::Request& request, const Json& body,
                            const std::string& password_hash) {
  TH_RETURN_IF_ERROR(check_fields(body, {"code", "password"}));
  TH_TRY(const std::string code, get_string(body, "code"));
  TH_RETURN_IF_ERROR(get_string(body, "password"));
  const User* user = user_of_reset(c, code);
  if (!user || user->roles.empty())
    return fail(Code::kPermissionDenied,
                "the code sets no password: it was used, or replaced, or has expired; ask for another");
  const std::string id = user->id;
  set_password(c, id, password_hash);
  TH_TRY(const Access::Secret session, c.access.sign_in(c.core.state().users.at(id)));
  return session_answer(c, session, request.tls);
}

void Api::add_people_routes(http::Router& router) {
  read(router, "/api/v1/tenants", [](Controller& c, const http::Request& request) {
    ByName<const reserve::AccountSpec*> accounts;  // by place: parents first
    for (const reserve::AccountSpec& account : c.core.policy().accounts)
      accounts.emplace(std::to_string(accounts.size() + 1), &account);
    return list_json(request, accounts, [&c](const std::string&, const reserve::AccountSpec* account) {
      return is_within_caller(c, account->name) ? tenant_json(c, *account) : Json();
    });
  });
  write(router, "POST", "/api/v1/tenants", kAdmin,
        [](Controller& c, const http::Request&, const Json& body) { return create_tenant(c, body); });
  write(router, "PATCH", "/api/v1/tenants/{name}", kAdmin,
        [](Controller& c, const http::Request& request, const Json& body) {
          return change_tenant(c, request.params.at("name"), body);
        });
  write(router, "DELETE", "/api/v1/tenants/{name}", kAdmin,
        [](Controller& c, const http::Request& request, const Json&) {
          return remove_tenant(c, request.params.at("name"));
        });
  read(
      router, "/api/v1/users",
      [](Controller& c, const http::Request& request) {
        return list_json(request, c.core.state().users,
                         [&c](const std::string&, const User& user) { return user_json(c, user); });
      },
      kAdmin);
  write(router, "POST", "/api/v1/users/{id}/role", kAdmin,
        [](Controller& c, const http::Request& request, const Json& body) {
          return set_role(c, request.params.at("id"), body);
        });
  write(router, "POST", "/api/v1/users/{id}/reset", kAdmin,
        [](Controller& c, const http::Request& request, const Json& body) {
          return make_reset(c, request.params.at("id"), body);
        });
  write(router, "DELETE", "/api/v1/users/{id}", kAdmin,
        [](Controller& c, const http::Request& request, const Json&) {
          return remove_user(c, request.params.at("id"));
        });
}

}  // namespace th::control
