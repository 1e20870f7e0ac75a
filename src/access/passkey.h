#pragma once
// Passkeys: registration and assertion by W3C Web Authentication Level 2 (www.w3.org/TR/webauthn-2), with
// user verification and without attestation.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "access/public_key.h"
#include "base/json.h"
#include "base/result.h"

namespace th::access {

/// Who asks: the host name that passkeys are bound to, and where the console's page is from.
struct RelyingParty {
  std::string id;      // "desk.example", never with a port; browsers take no IP address
  std::string origin;  // "https://desk.example:7070"
};

struct Passkey {
  std::string id;  // of the credential, base64url
  PublicKey key;
  uint32_t sign_count = 0;  // 0: its authenticator does not count
};

/// What navigator.credentials.create() wants, as the member publicKey; bytes are base64url, as
/// PublicKeyCredential.parseCreationOptionsFromJSON takes them. `known`: ids of passkeys of this user.
Json creation_options(const RelyingParty& party, const std::string& challenge, const std::string& user,
                      const std::string& login, const std::vector<std::string>& known);
/// The same for navigator.credentials.get(); no ids: any passkey that the browser finds for the host.
Json request_options(const RelyingParty& party, const std::string& challenge,
                     const std::vector<std::string>& ids);

/// Both take PublicKeyCredential.toJSON(), section 7.1 and 7.2 of the standard. Errors: kInvalidArgument
/// (malformed; names the field), kUnauthenticated (another challenge, origin or host, a person who was not
/// verified, a wrong signature, a counter that went back). Cost: under 2 ms. Thread: pure.
Result<Passkey> check_registration(const RelyingParty& party, const std::string& challenge,
                                   const Json& credential);
/// Returns the new sign count.
Result<uint32_t> check_assertion(const RelyingParty& party, const std::string& challenge,
                                 const Passkey& passkey, const Json& credential);

/// authData of section 6.1.
struct AuthenticatorData {
  std::string host_sha256;
  uint8_t flags = 0;
  uint32_t sign_count = 0;
  std::string credential;  // id, bytes; empty: none came along, as in an assertion
  PublicKey key;           // with `credential`
};
/// Errors: kInvalidArgument.
Result<AuthenticatorData> read_authenticator_data(std::string_view bytes);
/// The attestation object of a registration. Errors: kInvalidArgument.
Result<AuthenticatorData> read_attestation(std::string_view bytes);

}  // namespace th::access
