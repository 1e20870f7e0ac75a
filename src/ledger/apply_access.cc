#include "ledger/apply_access.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "reserve/policy.h"

namespace th::ledger {
namespace {

constexpr std::array<std::string_view, 5> kRoles = {"none", "viewer", "member", "operator", "admin"};

Status refuse(std::string what) { return fail(Code::kDataLoss, std::move(what)); }

/// The id after this one: of "key-7", 8.
int64_t after(const std::string& id) {
  int64_t out = 0;
  const size_t dash = id.rfind('-') + 1;
  std::from_chars(id.data() + dash, id.data() + id.size(), out);
  return out + 1;
}

template <class T, class F>
Status with(ById<T>& items, const std::string& id, const char* what, F change) {
  const auto found = items.find(id);
  if (found == items.end()) return refuse(std::string(what) + " " + id + " is unknown");
  return change(found->second);
}

}  // namespace

std::string_view name_of(Role role) { return kRoles[static_cast<size_t>(role)]; }
std::optional<Role> role_from_name(std::string_view name) {
  const auto found = std::ranges::find(kRoles, name);
  if (found == kRoles.begin() || found == kRoles.end()) return std::nullopt;
  return static_cast<Role>(found - kRoles.begin());
}

bool Key::has_scope(std::string_view scope) const { return std::ranges::find(scopes, scope) != scopes.end(); }

namespace detail {

/// role: admin (of the platform) | user (member of its account, the default one unless key_owned follows).
Status apply(State& state, const KeyAdded& e, int64_t now_ns) {
  if (state.keys.count(e.id)) return refuse("key " + e.id + " exists already");
  const bool admin = e.role == "admin";
  Key& key = state.keys[e.id];
  key.id = e.id, key.name = e.name, key.sha256 = e.sha256, key.created_ns = now_ns;
  key.of_operator = admin;
  key.role = admin ? Role::kAdmin : Role::kMember;
  key.tenant = admin ? "" : reserve::kDefaultAccount;
  key.scopes = {kScopeApi};
  if (!admin) key.scopes.emplace_back(kScopeInference);
  state.key_of_sha256[e.sha256] = e.id;
  state.next_key = std::max(state.next_key, after(e.id));
  return {};
}
Status apply(State& state, const KeyRevoked& e, int64_t) {
  return with(state.keys, e.id, "key", [](Key& key) -> Status {
    key.revoked = true;
    return {};
  });
}
Status apply(State& state, const KeyOwned& e, int64_t) {
  return with(state.keys, e.key, "key", [&](Key& key) -> Status {
    key.tenant = e.account;
    return {};
  });
}
Status apply(State& state, const KeyGranted& e, int64_t) {
  const auto role = role_from_name(e.role);
  if (!role) return refuse("key " + e.key + ": there is no role '" + e.role + "'");
  return with(state.keys, e.key, "key", [&](Key& key) -> Status {
    key.role = *role, key.tenant = e.tenant, key.user = e.user, key.parent = e.parent;
    key.scopes = e.scopes, key.expires_ns = e.expires_ns, key.tokens_per_minute = e.tokens_per_minute;
    return {};
  });
}
Status apply(State& state, const KeyUsed& e, int64_t) {
  return with(state.keys, e.key, "key", [&](Key& key) -> Status {
    key.last_used_ns = std::max(key.last_used_ns, e.used_ns);
    return {};
  });
}

Status apply(State& state, const TenantCreated& e, int64_t now_ns) {
  const auto old = state.tenants.find(e.tenant);
  if (e.tenant.empty() || old != state.tenants.end()) return refuse("tenant " + e.tenant + " exists already");
  state.tenants[e.tenant] = {e, now_ns, false};
  state.tenant_order.push_back(e.tenant);
  return {};
}
Status apply(State& state, const TenantChanged& e, int64_t) {
  const auto tenant = state.tenants.find(e.tenant);
  if (tenant == state.tenants.end()) return refuse("tenant " + e.tenant + " is unknown");
  TenantCreated& now = tenant->second.created;
  now.max_gpus = e.max_gpus, now.budget_microusd = e.budget_microusd, now.shares = e.shares;
  return {};
}
Status apply(State& state, const TenantRemoved& e, int64_t) {
  const auto tenant = state.tenants.find(e.tenant);
  if (tenant == state.tenants.end()) return refuse("tenant " + e.tenant + " is unknown");
  tenant->second.removed = true;
  return {};
}

Status apply(State& state, const UserAdded& e, int64_t now_ns) {
  if (state.users.count(e.user)) return refuse("user " + e.user + " exists already");
  User& user = state.users[e.user];
  user.id = e.user, user.login = e.login, user.created_ns = now_ns;
  state.next_user = std::max(state.next_user, after(e.user));
  return {};
}
Status apply(State& state, const UserRemoved& e, int64_t) {
  state.credentials.forget(e.user);
  return with(state.users, e.user, "user", [](User& user) -> Status {
    user.removed = true;
    user.roles.clear();
    return {};
  });
}
Status apply(State& state, const RoleGranted& e, int64_t) {
  const auto role = role_from_name(e.role);
  if (!role && !e.role.empty()) return refuse("there is no role '" + e.role + "'");
  return with(state.users, e.user, "user", [&](User& user) -> Status {
    if (user.removed) return refuse("user " + e.user + " is removed");
    if (role) user.roles[e.tenant] = *role;
    if (!role) user.roles.erase(e.tenant);
    state.credentials.resets.erase(e.user);  // who made the code may have less than the user has now
    return {};
  });
}

Status apply(State& state, const InvitationMade& e, int64_t now_ns) {
  if (!role_from_name(e.role)) return refuse("there is no role '" + e.role + "'");
  if (!state.invitations.emplace(e.invitation, Invitation{e, now_ns, {}, false}).second)
    return refuse("invitation " + e.invitation + " exists already");
  state.next_invitation = std::max(state.next_invitation, after(e.invitation));
  return {};
}
Status apply(State& state, const InvitationTaken& e, int64_t now_ns) {
  return with(state.invitations, e.invitation, "invitation", [&](Invitation& invitation) -> Status {
    if (!invitation.open_at(now_ns)) return refuse("invitation " + e.invitation + " is not open");
    invitation.user = e.user;
    return {};
  });
}
Status apply(State& state, const InvitationRevoked& e, int64_t) {
  return with(state.invitations, e.invitation, "invitation", [](Invitation& invitation) -> Status {
    invitation.revoked = true;
    return {};
  });
}

Status apply(State& state, const ApplicationMade& e, int64_t now_ns) {
  if (!state.applications.emplace(e.application, Application{e, now_ns, {}}).second)
    return refuse("application " + e.application + " exists already");
  state.next_application = std::max(state.next_application, after(e.application));
  return {};
}
Status apply(State& state, const ApplicationReviewed& e, int64_t) {
  return with(state.applications, e.application, "application", [&](Application& application) -> Status {
    if (application.reviewed) return refuse("application " + e.application + " is reviewed already");
    application.reviewed = e;
    return {};
  });
}

}  // namespace detail
}  // namespace th::ledger
