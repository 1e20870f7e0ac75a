#pragma once
// The part of the state that says who may come in and what for (state.h).

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/access_events.h"

namespace th::ledger {

/// Each may what those before it may. In a tenant it holds for all below.
enum class Role { kNone, kViewer, kMember, kOperator, kAdmin };
std::string_view name_of(Role role);
/// nullopt for a name that is none.
std::optional<Role> role_from_name(std::string_view name);

inline constexpr const char* kScopeApi = "api";              // REST, as a bearer
inline constexpr const char* kScopeInference = "inference";  // the gateway
inline constexpr const char* kScopeConsole = "console";      // REST, as a cookie

struct Key {
  std::string id, name, sha256;
  Role role = Role::kNone;
  std::string tenant;  // "": the platform
  std::string user, parent;
  std::vector<std::string> scopes;
  int64_t created_ns = 0, expires_ns = 0, last_used_ns = 0;  // 0: never
  int64_t tokens_per_minute = 0;                             // at the gateway; 0: no limit
  bool revoked = false;
  bool of_operator = false;  // the one in STATE/admin.key

  bool has_scope(std::string_view scope) const;
  bool valid_at(int64_t now_ns) const { return !revoked && (expires_ns == 0 || now_ns < expires_ns); }
};

struct Tenant {
  TenantCreated created;  // with what was changed since
  int64_t created_ns = 0;
  bool removed = false;
};

struct User {
  std::string id, login;
  std::map<std::string, Role> roles;  // tenant → role there
  int64_t created_ns = 0;
  bool removed = false;
};

struct Invitation {
  InvitationMade made;
  int64_t made_ns = 0;
  std::string user;  // who took it
  bool revoked = false;

  bool open_at(int64_t now_ns) const { return user.empty() && !revoked && now_ns < made.expires_ns; }
};

struct Application {
  ApplicationMade made;
  int64_t made_ns = 0;
  std::optional<ApplicationReviewed> reviewed;
};

}  // namespace th::ledger
