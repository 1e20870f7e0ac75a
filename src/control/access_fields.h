#pragma once
// Fields that the routes of keys, users, tenants and invitations have in common.

#include <string>

#include "base/json.h"
#include "control/controller.h"

namespace th::control {

/// At most the caller's. Errors: kInvalidArgument, kPermissionDenied.
Result<ledger::Role> read_role(const Controller& c, const Json& body, const char* fallback);
/// A tenant that the caller sees, "" (the platform) only where it is of the platform; left out: `fallback`.
/// Errors: kInvalidArgument, kNotFound, kFailedPrecondition (it was removed).
Result<std::string> read_tenant(const Controller& c, const Json& body, const char* field,
                                const std::string& fallback);
/// A time that is still to come, or `fallback`. Errors: kInvalidArgument.
Result<int64_t> read_expiry(const Controller& c, const Json& body, int64_t fallback);
/// Errors: kInvalidArgument (below 0); left out: `fallback`.
Result<int64_t> read_amount(const Json& body, const char* field, int64_t fallback);
/// Of what there is none: null.
Json null_if(int64_t value, int64_t none);
bool is_within_caller(const Controller& c, const std::string& tenant);

}  // namespace th::control
