#pragma once
// Sign-in by a provider of OpenID Connect: the authorization code flow with PKCE (RFC 7636).

#include <cstdint>
#include <string>
#include <string_view>

#include "access/id_token.h"
#include "base/result.h"

namespace th::access {

/// The file of th-controld --oidc (docs/sign-in.md).
struct OidcOptions {
  std::string name;    // on the button
  std::string issuer;  // "https://login.example/realms/lab"
  std::string client_id, client_secret;
  std::string scopes = "openid profile email";
  std::string redirect_url;   // empty: that of the controller
  std::string authority_pem;  // of the issuer's certificate; empty: those that the system trusts
};
/// Addresses are https, or of this machine. Errors: kInvalidArgument, "oidc.yaml:3: issuer: …", those of the
/// files that it names.
Result<OidcOptions> read_oidc_options(std::string_view text, std::string_view file);

/// What the provider tells of itself.
struct OidcProvider {
  std::string authorization_url, token_url, keys_url;
};
/// Asks for /.well-known/openid-configuration. Blocking. Errors: kUnavailable, kFailedPrecondition (it tells
/// of another issuer, or of addresses that are not https).
Result<OidcProvider> discover(const OidcOptions& options);
/// The same from the answer. Errors: kFailedPrecondition.
Result<OidcProvider> read_provider(const OidcOptions& options, const Json& answer);

/// One sign-in under way; each is random_token().
struct OidcAttempt {
  std::string state, nonce, verifier;
};
/// Where to send the browser.
std::string authorization_url(const OidcOptions& options, const OidcProvider& provider,
                              const std::string& redirect_url, const OidcAttempt& attempt);

/// Changes the code of the provider's answer into who it is. Blocking. Errors: kUnauthenticated,
/// kUnavailable.
Result<Identity> redeem(const OidcOptions& options, const OidcProvider& provider,
                        const std::string& redirect_url, const OidcAttempt& attempt, const std::string& code,
                        int64_t now_ns);

}  // namespace th::access
