#include "control/access_fields.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace th::control {

using ledger::Role;

Result<Role> read_role(const Controller& c, const Json& body, const char* fallback) {
  TH_TRY(const std::string name, get_string(body, "role", std::string(fallback)));
  const auto role = ledger::role_from_name(name);
  if (!role)
    return fail(Code::kInvalidArgument,
                fmt::format("field 'role': '{}' is none of viewer, member, operator, admin", name));
  if (*role <= c.core.who().role) return *role;
  return fail(Code::kPermissionDenied,
              fmt::format("field 'role': yours is {}, and nobody gives more", name_of(c.core.who().role)));
}

Result<std::string> read_tenant(const Controller& c, const Json& body, const char* field,
                                const std::string& fallback) {
  TH_TRY(const std::string tenant, get_string(body, field, fallback));
  if (tenant.empty() && c.core.caller().account.empty()) return tenant;
  if (tenant.empty())
    return fail(Code::kInvalidArgument, fmt::format("field '{}': want the name of a tenant", field));
  TH_TRY(const ledger::Owner owner, c.core.owner_for(tenant, "", ""));
  return owner.account;
}

Result<int64_t> read_expiry(const Controller& c, const Json& body, int64_t fallback) {
  TH_TRY(const int64_t expires_ns, get_int(body, "expires_ns", fallback));
  if (expires_ns == fallback || expires_ns > c.core.now_ns()) return expires_ns;
  return fail(Code::kInvalidArgument, "field 'expires_ns': want a time that is still to come");
}

Result<int64_t> read_amount(const Json& body, const char* field, int64_t fallback) {
  if (!body.contains(field) || body[field].is_null()) return fallback;
  TH_TRY(const int64_t amount, get_int(body, field));
  if (amount >= 0) return amount;
  return fail(Code::kInvalidArgument, fmt::format("field '{}': want an integer >= 0", field));
}

Json null_if(int64_t value, int64_t none) { return value == none ? Json(nullptr) : Json(value); }

bool is_within_caller(const Controller& c, const std::string& tenant) {
  return is_within(c.core.policy(), tenant, c.core.caller().account);
}

}  // namespace th::control
