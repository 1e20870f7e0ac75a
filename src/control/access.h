#pragma once
// Who may come in: keys, users, invitations, and what is known of a caller. Thread: the loop only.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/core.h"

namespace th::control {

inline constexpr int64_t kSessionNs = 12 * kHour;

class Access {
 public:
  explicit Access(Core& core) : core_(core) {}

  struct NewKey {
    std::string name, tenant;
    ledger::Role role = ledger::Role::kViewer;
    std::vector<std::string> scopes = {};
    std::string user = {}, parent = {};
    int64_t expires_ns = 0, tokens_per_minute = 0;  // 0: never, no limit
  };
  struct Secret {
    std::string id, secret;  // the secret is nowhere else
  };
  Secret make_key(const NewKey& key);
  /// With the sessions that were opened with it.
  void revoke(const std::string& key);
  /// By their secret, among those that are valid; null if there is none. Cost: O(log keys).
  const ledger::Key* find_key(std::string_view secret) const;
  /// What the key may do at this moment: never more than its user.
  ledger::Role role_of(const ledger::Key& key) const;
  /// The user's, in a tenant or one above it.
  ledger::Role role_in(const ledger::User& user, std::string_view tenant) const;
  /// The user with that name who is not removed; null if there is none.
  const ledger::User* find_user(std::string_view login) const;

  /// A session of somebody who has shown who he is: in `tenant`, else where the user's role is the highest.
  /// Errors: kPermissionDenied (no role there).
  Result<Secret> sign_in(const ledger::User& user, const std::optional<std::string>& tenant = {});
  /// A session with what the key may do.
  Secret sign_in(const ledger::Key& key);

  void used(const std::string& key, int64_t time_ns);
  /// Writes down which keys were used, each at most once a minute.
  void step();

 private:
  Core& core_;
  std::map<std::string, int64_t> used_ns_;
};

}  // namespace th::control
