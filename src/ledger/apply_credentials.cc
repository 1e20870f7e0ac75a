#include "ledger/credentials.h"
#include "ledger/state.h"

namespace th::ledger {
namespace {

Status refuse_credential(std::string what) { return fail(Code::kDataLoss, std::move(what)); }

Status check_user(const State& state, const std::string& user) {
  const auto found = state.users.find(user);
  if (found == state.users.end() || found->second.removed)
    return refuse_credential("user " + user + " is unknown");
  return {};
}

}  // namespace

void Credentials::forget(const std::string& user) {
  password_of.erase(user);
  resets.erase(user);
  std::erase_if(passkeys, [&](const auto& item) { return item.second.added.user == user; });
  std::erase_if(user_of, [&](const auto& item) { return item.second == user; });
}

namespace detail {

Status apply(State& state, const PasswordSet& e, int64_t) {
  TH_RETURN_IF_ERROR(check_user(state, e.user));
  if (e.hash.empty()) {
    state.credentials.password_of.erase(e.user);
  } else {
    state.credentials.password_of[e.user] = e.hash;
  }
  state.credentials.resets.erase(e.user);
  return {};
}

Status apply(State& state, const PasswordResetMade& e, int64_t) {
  TH_RETURN_IF_ERROR(check_user(state, e.user));
  state.credentials.resets[e.user] = e;
  return {};
}

Status apply(State& state, const PasskeyAdded& e, int64_t now_ns) {
  TH_RETURN_IF_ERROR(check_user(state, e.user));
  if (!state.credentials.passkeys.try_emplace(e.passkey, Passkey{e, e.sign_count, now_ns, 0}).second)
    return refuse_credential("passkey " + e.passkey + " exists already");
  return {};
}

Status apply(State& state, const PasskeyUsed& e, int64_t now_ns) {
  const auto found = state.credentials.passkeys.find(e.passkey);
  if (found == state.credentials.passkeys.end())
    return refuse_credential("passkey " + e.passkey + " is unknown");
  found->second.sign_count = e.sign_count, found->second.last_used_ns = now_ns;
  return {};
}

Status apply(State& state, const PasskeyRemoved& e, int64_t) {
  if (state.credentials.passkeys.erase(e.passkey) == 0)
    return refuse_credential("passkey " + e.passkey + " is unknown");
  return {};
}

Status apply(State& state, const SubjectLinked& e, int64_t) {
  TH_RETURN_IF_ERROR(check_user(state, e.user));
  if (!state.credentials.user_of.try_emplace({e.issuer, e.subject}, e.user).second)
    return refuse_credential("subject " + e.subject + " is of a user already");
  return {};
}

}  // namespace detail
}  // namespace th::ledger
