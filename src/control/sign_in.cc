#include "control/sign_in.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace th::control {
namespace {

constexpr size_t kMaxPasskeys = 20;
constexpr const char* kCallback = "/api/v1/session/oidc/callback";

std::string without_port(const std::string& host) {
  const size_t colon = host.rfind(':');
  const bool is_v6 = host.ends_with(']') || host.find(':') != colon;
  return colon == std::string::npos || is_v6 ? host : host.substr(0, colon);
}

}  // namespace

int64_t SignIn::try_name(const std::string& peer, const std::string& name, int64_t now_ns) {
  const std::string group = access::peer_group(peer), who = name.substr(0, 64);
  const int64_t wait = std::max(by_peer_.wait_ns(group, now_ns), by_name_.wait_ns(who, now_ns));
  if (wait > 0) return wait;
  by_peer_.count(group, now_ns);
  by_name_.count(who, now_ns);
  return 0;
}

int64_t SignIn::try_open_route(const std::string& peer, int64_t now_ns) {
  return open_.take(access::peer_group(peer), now_ns);
}

int64_t SignIn::try_wrong_key(const std::string& peer, int64_t now_ns) {
  return wrong_keys_.take(access::peer_group(peer), now_ns);
}

Result<access::RelyingParty> SignIn::party(const http::Request& request) const {
  const std::string host = request.header("Host").value_or("");
  const std::string name = without_port(host);
  if (std::ranges::find(options_.hosts, name) != options_.hosts.end())
    return access::RelyingParty{name, fmt::format("{}://{}", request.tls ? "https" : "http", host)};
  return fail(
      Code::kFailedPrecondition,
      fmt::format("passkeys are bound to a host name, and '{}' is none of this controller's ({}); open "
                  "the console by one of them, or start the controller with --name",
                  name, join(options_.hosts, ", ")));
}

std::string SignIn::redirect_url() const {
  if (options_.oidc && !options_.oidc->redirect_url.empty()) return options_.oidc->redirect_url;
  return options_.url + kCallback;
}

void set_password(Controller& c, const std::string& user, const std::string& hash) {
  c.core.stage(ledger::PasswordSet{user, hash});
  // Who had the old password may have a session.
  std::vector<std::string> others;
  for (const auto& [id, key] : c.core.state().keys) {
    const bool session = key.user == user && key.has_scope(ledger::kScopeConsole) && !key.revoked;
    if (session && id != c.core.who().key) others.push_back(id);
  }
  for (const std::string& id : others) c.core.stage(ledger::KeyRevoked{id});
}

Result<std::string> use_passkey(Controller& c, SignIn& sign_in, const http::Request& request,
                                const std::string& challenge, const Json& credential) {
  const auto begun = sign_in.challenges.take(challenge, c.core.now_ns());
  if (!begun || !begun->user.empty())
    return fail(Code::kUnauthenticated, "this sign-in was not begun here, or too long ago; begin anew");
  TH_TRY(const access::RelyingParty party, sign_in.party(request));
  TH_TRY(const std::string id, get_string(credential.is_object() ? credential : Json::object(), "id"));
  const auto& passkeys = c.core.state().credentials.passkeys;
  const auto kept = passkeys.find(id);
  if (kept == passkeys.end() || kept->second.added.host != party.id)
    return fail(Code::kUnauthenticated, "this passkey is not known here");
  TH_TRY(access::PublicKey key, access::public_key_from_text(kept->second.added.key));
  const access::Passkey passkey{id, std::move(key), static_cast<uint32_t>(kept->second.sign_count)};
  TH_TRY(const uint32_t count, access::check_assertion(party, challenge, passkey, credential));
  const std::string user = kept->second.added.user;
  c.core.stage(ledger::PasskeyUsed{id, count});
  return user;
}

Result<ledger::PasskeyAdded> add_passkey(Controller& c, SignIn& sign_in, const http::Request& request,
                                         const std::string& user, const Json& body) {
  TH_TRY(const std::string name, get_string(body, "name", "passkey"));
  TH_RETURN_IF_ERROR(check_name(name, "field 'name'"));
  TH_TRY(const std::string challenge, get_string(body, "challenge"));
  const auto begun = sign_in.challenges.take(challenge, c.core.now_ns());
  if (!begun || begun->user != user)
    return fail(Code::kUnauthenticated, "this registration was not begun here, or too long ago; begin anew");
  TH_TRY(const access::RelyingParty party, sign_in.party(request));
  if (!body.contains("credential")) return fail(Code::kInvalidArgument, "field 'credential': is missing");
  TH_TRY(const access::Passkey made, access::check_registration(party, challenge, body["credential"]));
  const auto& passkeys = c.core.state().credentials.passkeys;
  if (passkeys.count(made.id) != 0) return fail(Code::kAlreadyExists, "this passkey is registered already");
  const auto his =
      std::ranges::count_if(passkeys, [&](const auto& at) { return at.second.added.user == user; });
  if (static_cast<size_t>(his) >= kMaxPasskeys)
    return fail(Code::kResourceExhausted,
                fmt::format("you have {} passkeys; remove one first", kMaxPasskeys));
  ledger::PasskeyAdded added{user, made.id, access::to_text(made.key), party.id, name, made.sign_count};
  c.core.stage(added);
  return added;
}

}  // namespace th::control
