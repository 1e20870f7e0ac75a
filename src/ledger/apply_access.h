#pragma once
// apply() for the events of keys and of access_events.h.

#include "ledger/state.h"

namespace th::ledger::detail {

Status apply(State& state, const KeyAdded& e, int64_t now_ns);
Status apply(State& state, const KeyRevoked& e, int64_t now_ns);
Status apply(State& state, const KeyOwned& e, int64_t now_ns);
Status apply(State& state, const KeyGranted& e, int64_t now_ns);
Status apply(State& state, const KeyUsed& e, int64_t now_ns);
Status apply(State& state, const TenantCreated& e, int64_t now_ns);
Status apply(State& state, const TenantChanged& e, int64_t now_ns);
Status apply(State& state, const TenantRemoved& e, int64_t now_ns);
Status apply(State& state, const UserAdded& e, int64_t now_ns);
Status apply(State& state, const UserRemoved& e, int64_t now_ns);
Status apply(State& state, const RoleGranted& e, int64_t now_ns);
Status apply(State& state, const InvitationMade& e, int64_t now_ns);
Status apply(State& state, const InvitationTaken& e, int64_t now_ns);
Status apply(State& state, const InvitationRevoked& e, int64_t now_ns);
Status apply(State& state, const ApplicationMade& e, int64_t now_ns);
Status apply(State& state, const ApplicationReviewed& e, int64_t now_ns);

}  // namespace th::ledger::detail
