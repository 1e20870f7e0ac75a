#pragma once
// What signing in takes beside the ledger: who may try how often, and what is under way. It is lost at a
// restart, after which people begin anew. Thread: the loop only.

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "access/oidc.h"
#include "access/passkey.h"
#include "access/rate_limit.h"
#include "control/controller.h"
#include "http/message.h"

namespace th::control {

struct SignInOptions {
  /// Host names of this controller: passkeys are bound to one. An address is none.
  std::vector<std::string> hosts = {"localhost"};
  std::string url;  // of this controller, where providers send people back to
  std::optional<access::OidcOptions> oidc;
};

/// What is begun and then taken once, within ten minutes; of too many the oldest is forgotten.
template <class T>
class Pending {
 public:
  static constexpr int64_t kKeptNs = 10 * kMinute;
  static constexpr size_t kMost = 4096;

  void put(const std::string& id, T value, int64_t now_ns) {
    order_.emplace_back(now_ns + kKeptNs, id);
    values_.insert_or_assign(id, std::move(value));
    while (order_.size() > kMost || order_.front().first <= now_ns) {
      values_.erase(order_.front().second);
      order_.pop_front();
    }
  }
  std::optional<T> take(const std::string& id, int64_t now_ns) {
    while (!order_.empty() && order_.front().first <= now_ns) {
      values_.erase(order_.front().second);
      order_.pop_front();
    }
    auto found = values_.extract(id);
    if (found.empty()) return std::nullopt;
    return std::move(found.mapped());
  }

 private:
  std::deque<std::pair<int64_t, std::string>> order_;  // when it ends, id
  std::map<std::string, T> values_;
};

class SignIn {
 public:
  void set_options(SignInOptions options) { options_ = std::move(options); }
  const SignInOptions& options() const { return options_; }

  // Rates: how long to wait, 0: it may be tried, and the try is counted.
  int64_t try_name(const std::string& peer, const std::string& name, int64_t now_ns);
  int64_t try_open_route(const std::string& peer,
                         int64_t now_ns);  // invitations, applications, passkeys, OIDC
  int64_t try_wrong_key(const std::string& peer, int64_t now_ns);

  /// Whom a passkey that is used with this request is bound to. Errors: kFailedPrecondition (a host that is
  /// not ours, or an address).
  Result<access::RelyingParty> party(const http::Request& request) const;

  /// `user`: who registers; empty: somebody signs in.
  struct Challenge {
    std::string user, host;
  };
  Pending<Challenge> challenges;

  struct Outside {
    access::OidcAttempt attempt;
    access::OidcProvider provider;
    std::string browser_sha256;     // of the cookie th_oidc
    std::string invitation, login;  // for who comes in by one
  };
  Pending<Outside> outside;
  std::string redirect_url() const;

 private:
  SignInOptions options_;
  // Guessing takes years; people who mistype do not notice.
  access::RateLimit by_peer_{{.burst = 30, .interval_ns = 2 * kSecond}};
  access::RateLimit by_name_{{.burst = 10, .interval_ns = 20 * kSecond}};
  access::RateLimit open_{{.burst = 120, .interval_ns = 2 * kSecond}};
  access::RateLimit wrong_keys_{{.burst = 500, .interval_ns = 50 * kMillisecond}};
};

// Changes of the ledger. Errors: those of access/.
/// `hash` as made by access::hash_password. Sessions of the user but this one end.
void set_password(Controller& c, const std::string& user, const std::string& hash);
/// The user whom this passkey signs in. Errors: kUnauthenticated.
Result<std::string> use_passkey(Controller& c, SignIn& sign_in, const http::Request& request,
                                const std::string& challenge, const Json& credential);
/// Errors: kInvalidArgument, kUnauthenticated, kAlreadyExists, kResourceExhausted (a user has 20 at most).
Result<ledger::PasskeyAdded> add_passkey(Controller& c, SignIn& sign_in, const http::Request& request,
                                         const std::string& user, const Json& body);

}  // namespace th::control
