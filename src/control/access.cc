#include "control/access.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace th::control {

using ledger::Key;
using ledger::Role;
using ledger::User;

Access::Secret Access::make_key(const NewKey& key) {
  Secret out{fmt::format("key-{}", core_.state().next_key), core_.token()};
  core_.stage(ledger::KeyAdded{out.id, key.name, sha256_hex(out.secret), "user"});
  core_.stage(ledger::KeyGranted{out.id, std::string(name_of(key.role)), key.tenant, key.user, key.parent,
                                 key.scopes, key.expires_ns, key.tokens_per_minute});
  return out;
}

void Access::revoke(const std::string& key) {
  std::vector<std::string> ended;
  for (const auto& [id, other] : core_.state().keys) {
    if ((id == key || other.parent == key) && !other.revoked) ended.push_back(id);
  }
  for (const std::string& id : ended) core_.stage(ledger::KeyRevoked{id});
}

const Key* Access::find_key(std::string_view secret) const {
  const auto id = core_.state().key_of_sha256.find(sha256_hex(secret));
  if (id == core_.state().key_of_sha256.end()) return nullptr;
  const Key& key = core_.state().keys.at(id->second);
  return key.valid_at(core_.now_ns()) ? &key : nullptr;
}

Role Access::role_of(const Key& key) const {
  if (key.user.empty()) return key.role;
  const auto user = core_.state().users.find(key.user);
  return user == core_.state().users.end() ? Role::kNone
                                           : std::min(key.role, role_in(user->second, key.tenant));
}

Role Access::role_in(const User& user, std::string_view tenant) const {
  Role out = Role::kNone;
  for (const auto& [above, role] : user.roles) {
    if (is_within(core_.policy(), tenant, above)) out = std::max(out, role);
  }
  return out;
}

const User* Access::find_user(std::string_view login) const {
  for (const auto& [id, user] : core_.state().users) {
    if (!user.removed && user.login == login) return &user;
  }
  return nullptr;
}

Result<Access::Secret> Access::sign_in(const User& user, const std::optional<std::string>& tenant) {
  std::string where = tenant.value_or("");
  if (!tenant) {
    const auto highest =
        std::ranges::max_element(user.roles, {}, [](const auto& item) { return item.second; });
    if (highest != user.roles.end()) where = highest->first;
  }
  const Role role = role_in(user, where);
  if (role == Role::kNone)
    return fail(Code::kPermissionDenied,
                fmt::format("user '{}' has no role in tenant '{}'", user.login, where));
  return make_key(
      {user.login, where, role, {ledger::kScopeConsole}, user.id, "", core_.now_ns() + kSessionNs});
}

Access::Secret Access::sign_in(const Key& key) {
  int64_t expires_ns = core_.now_ns() + kSessionNs;
  if (key.expires_ns != 0) expires_ns = std::min(expires_ns, key.expires_ns);
  return make_key({key.name, key.tenant, key.role, {ledger::kScopeConsole}, key.user, key.id, expires_ns});
}

void Access::used(const std::string& key, int64_t time_ns) {
  const auto found = core_.state().keys.find(key);
  if (found == core_.state().keys.end() || time_ns < found->second.last_used_ns + kMinute) return;
  int64_t& at = used_ns_[key];
  at = std::max(at, std::min(time_ns, core_.now_ns()));
}

void Access::step() {
  for (const auto& [key, time_ns] : used_ns_) core_.stage(ledger::KeyUsed{key, time_ns});
  used_ns_.clear();
}

}  // namespace th::control
