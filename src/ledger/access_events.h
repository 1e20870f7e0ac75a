#pragma once
// Events of who may come in: tenants, users, keys, invitations, applications (event_types.h has the rules).
// No secret is in any of them. "" as a tenant is the platform itself, the root of the tree.

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/event_fields.h"

namespace th::ledger {

/// An account of the queue's tree from here on, beside those of policy.yaml. kind: tenant | project (a leaf).
/// max_gpus, budget_microusd: -1: no limit.
struct TenantCreated {
  std::string tenant, parent, kind;
  int64_t max_gpus = -1, budget_microusd = -1, shares = 1;
  TH_EVENT("tenant_created") {
    v("tenant", e.tenant), v("parent", e.parent), v("kind", e.kind), v("max_gpus", e.max_gpus);
    v("budget_microusd", e.budget_microusd), v("shares", e.shares);
  }
};
/// Its limits from here on; -1: none.
struct TenantChanged {
  std::string tenant;
  int64_t max_gpus = -1, budget_microusd = -1, shares = 1;
  TH_EVENT("tenant_changed") {
    v("tenant", e.tenant), v("max_gpus", e.max_gpus), v("budget_microusd", e.budget_microusd);
    v("shares", e.shares);
  }
};
/// Nothing new is taken for it; what it had stays its.
struct TenantRemoved {
  std::string tenant;
  TH_EVENT("tenant_removed") { v("tenant", e.tenant); }
};

/// A person. login: the name to sign in with, of one user at a time.
struct UserAdded {
  std::string user, login;
  TH_EVENT("user_added") { v("user", e.user), v("login", e.login); }
};
struct UserRemoved {
  std::string user;
  TH_EVENT("user_removed") { v("user", e.user); }
};
/// role: viewer | member | operator | admin, in the tenant and all below it; "": none any more.
struct RoleGranted {
  std::string user, tenant, role;
  TH_EVENT("role_granted") { v("user", e.user), v("tenant", e.tenant), v("role", e.role); }
};

/// What the key may do; staged with its key_added, in place of what that one's role says. user: whose; "": of
/// nobody in particular. parent: the key it was made of by signing in; it ends with that one. scopes: api |
/// inference | console. expires_ns, tokens_per_minute: 0: never, no limit.
struct KeyGranted {
  std::string key, role, tenant, user, parent;
  std::vector<std::string> scopes;
  int64_t expires_ns = 0, tokens_per_minute = 0;
  TH_EVENT("key_granted") {
    v("key", e.key), v("role", e.role), v("tenant", e.tenant), v("user", e.user), v("parent", e.parent);
    v("scopes", e.scopes), v("expires_ns", e.expires_ns), v("tokens_per_minute", e.tokens_per_minute);
  }
};
/// It was last used then, or up to a minute later.
struct KeyUsed {
  std::string key;
  int64_t used_ns = 0;
  TH_EVENT("key_used") { v("key", e.key), v("used_ns", e.used_ns); }
};

/// Who has the code may become a user, once, until then. login: the only name that it is for; "": any.
/// max_gpus: of a project of the user's own below the tenant; -1: none, the role is in the tenant. by: who
/// made it.
struct InvitationMade {
  std::string invitation, code_sha256, tenant, role, login, by;
  int64_t expires_ns = 0, max_gpus = -1, tokens_per_minute = 0;
  TH_EVENT("invitation_made") {
    v("invitation", e.invitation), v("code_sha256", e.code_sha256), v("tenant", e.tenant), v("role", e.role);
    v("login", e.login), v("by", e.by), v("expires_ns", e.expires_ns), v("max_gpus", e.max_gpus);
    v("tokens_per_minute", e.tokens_per_minute);
  }
};
struct InvitationTaken {
  std::string invitation, user;
  TH_EVENT("invitation_taken") { v("invitation", e.invitation), v("user", e.user); }
};
struct InvitationRevoked {
  std::string invitation;
  TH_EVENT("invitation_revoked") { v("invitation", e.invitation); }
};

/// Somebody asks to be invited.
struct ApplicationMade {
  std::string application, applicant, contact, tenant, why;
  TH_EVENT("application_made") {
    v("application", e.application), v("applicant", e.applicant), v("contact", e.contact);
    v("tenant", e.tenant), v("why", e.why);
  }
};
/// invitation: where it was accepted.
struct ApplicationReviewed {
  std::string application, by, invitation, reason;
  bool accepted = false;
  TH_EVENT("application_reviewed") {
    v("application", e.application), v("by", e.by), v("invitation", e.invitation), v("reason", e.reason);
    v("accepted", e.accepted);
  }
};

}  // namespace th::ledger
