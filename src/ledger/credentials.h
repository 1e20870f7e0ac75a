#pragma once
// The part of the state that says what people sign in with (state.h).

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/result.h"
#include "ledger/credential_events.h"

namespace th::ledger {

struct State;

struct Passkey {
  PasskeyAdded added;
  int64_t sign_count = 0, added_ns = 0, last_used_ns = 0;  // 0: never
};

struct Credentials {
  std::map<std::string, std::string> password_of;                      // user → hash
  std::map<std::string, PasswordResetMade> resets;                     // by user: codes that were not taken
  std::map<std::string, Passkey> passkeys;                             // by id
  std::map<std::pair<std::string, std::string>, std::string> user_of;  // issuer, subject → user

  /// What the user had is gone.
  void forget(const std::string& user);
};

namespace detail {
Status apply(State& state, const PasswordSet& e, int64_t now_ns);
Status apply(State& state, const PasswordResetMade& e, int64_t now_ns);
Status apply(State& state, const PasskeyAdded& e, int64_t now_ns);
Status apply(State& state, const PasskeyUsed& e, int64_t now_ns);
Status apply(State& state, const PasskeyRemoved& e, int64_t now_ns);
Status apply(State& state, const SubjectLinked& e, int64_t now_ns);
}  // namespace detail

}  // namespace th::ledger
