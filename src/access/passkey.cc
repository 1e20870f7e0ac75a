#include "access/passkey.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "access/cbor.h"
#include "base/text.h"

namespace th::access {
namespace {

constexpr size_t kMaxBytes = size_t{8} << 10;  // of each field
constexpr size_t kMaxCredentialBytes = 1023;   // 5.8.3
constexpr int64_t kTimeoutMs = 5 * 60 * 1000;
constexpr size_t kHostBytes = 32, kFixedBytes = 37;  // 6.1: host, flags, counter
constexpr size_t kAaguidBytes = 16;
// Flags of 6.1.
constexpr uint8_t kUserPresent = 0x01, kUserVerified = 0x04, kHasCredential = 0x40;
// IANA COSE registries: algorithms, key types, curves, labels of keys.
constexpr int64_t kCoseEs256 = -7, kCoseEdDsa = -8, kCoseRs256 = -257;

tl::unexpected<Error> bad(std::string problem) { return fail(Code::kInvalidArgument, std::move(problem)); }
tl::unexpected<Error> refused(std::string problem) {
  return fail(Code::kUnauthenticated, "this passkey is refused: " + std::move(problem));
}

Result<std::string> bytes_of(const Json& response, const char* field) {
  TH_TRY(const std::string text, get_string(response, field));
  if (text.size() > kMaxBytes) return bad(fmt::format("field '{}': is over 8 KiB", field));
  return from_base64url(text, field);
}

Result<Json> response_of(const Json& credential) {
  if (!credential.is_object() || !credential.contains("response") || !credential["response"].is_object())
    return bad("field 'response': want an object, as PublicKeyCredential.toJSON() gives it");
  return credential["response"];
}

Result<std::string> cose_bytes(const Cbor& key, int64_t label) {
  const Cbor* value = key.find(label);
  if (value && value->kind == Cbor::Kind::kBytes) return value->bytes;
  return bad(fmt::format("the passkey's public key lacks its part {}", label));
}

bool has(const Cbor& key, int64_t label, int64_t want) {
  const Cbor* value = key.find(label);
  return value && value->kind == Cbor::Kind::kInteger && value->integer == want;
}

/// RFC 9053, section 7, and RFC 8230, section 4.
Result<PublicKey> read_cose_key(const Cbor& key) {
  if (has(key, 1, 2) && has(key, 3, kCoseEs256) && has(key, -1, 1)) {
    TH_TRY(const std::string x, cose_bytes(key, -2));
    TH_TRY(const std::string y, cose_bytes(key, -3));
    return p256_key(x, y);
  }
  if (has(key, 1, 1) && has(key, 3, kCoseEdDsa) && has(key, -1, 6)) {
    TH_TRY(const std::string x, cose_bytes(key, -2));
    return ed25519_key(x);
  }
  if (has(key, 1, 3) && has(key, 3, kCoseRs256)) {
    TH_TRY(const std::string n, cose_bytes(key, -1));
    TH_TRY(const std::string e, cose_bytes(key, -2));
    return rsa_key(n, e);
  }
  return bad("the passkey's public key is none of ES256, EdDSA and RS256");
}

/// What the browser says that it signed for whom.
Status check_client_data(const RelyingParty& party, const std::string& challenge, const char* type,
                         const std::string& text) {
  TH_TRY(const Json data, parse_json(text, "field 'clientDataJSON'"));
  TH_TRY(const std::string got_type, get_string(data, "type"));
  TH_TRY(const std::string got_challenge, get_string(data, "challenge"));
  TH_TRY(const std::string origin, get_string(data, "origin"));
  if (got_type != type) return refused(fmt::format("it is for {}, not {}", got_type, type));
  if (!equal_secret(got_challenge, challenge)) return refused("it answers another challenge; begin anew");
  if (origin != party.origin) return refused(fmt::format("it is for {}, not {}", origin, party.origin));
  if (data.contains("crossOrigin") && data["crossOrigin"] != Json(false))
    return refused("it comes from within a page of another site");
  return {};
}

Status check_authenticator(const RelyingParty& party, const AuthenticatorData& data) {
  if (data.host_sha256 != sha256_bytes(party.id)) return refused("it is for another host than " + party.id);
  if ((data.flags & kUserPresent) == 0) return refused("nobody was there");
  if ((data.flags & kUserVerified) == 0) return refused("it did not verify who uses it");
  return {};
}

Json ids_json(const std::vector<std::string>& ids) {
  Json out = Json::array();
  for (const std::string& id : ids) out.push_back({{"type", "public-key"}, {"id", id}});
  return out;
}

}  // namespace

Json creation_options(const RelyingParty& party, const std::string& challenge, const std::string& user,
                      const std::string& login, const std::vector<std::string>& known) {
  Json algorithms = Json::array();
  for (const int64_t algorithm : {kCoseEs256, kCoseEdDsa, kCoseRs256})
    algorithms.push_back({{"type", "public-key"}, {"alg", algorithm}});
  return {{"rp", {{"id", party.id}, {"name", "Thunderhead"}}},
          {"user", {{"id", to_base64url(user)}, {"name", login}, {"displayName", login}}},
          {"challenge", challenge},
          {"pubKeyCredParams", algorithms},
          {"timeout", kTimeoutMs},
          {"excludeCredentials", ids_json(known)},
          {"authenticatorSelection",
           {{"residentKey", "required"}, {"requireResidentKey", true}, {"userVerification", "required"}}},
          {"attestation", "none"}};
}

Json request_options(const RelyingParty& party, const std::string& challenge,
                     const std::vector<std::string>& ids) {
  return {{"challenge", challenge},
          {"timeout", kTimeoutMs},
          {"rpId", party.id},
          {"allowCredentials", ids_json(ids)},
          {"userVerification", "required"}};
}

Result<AuthenticatorData> read_authenticator_data(std::string_view bytes) {
  if (bytes.size() < kFixedBytes || bytes.size() > kMaxBytes)
    return bad("authenticator data of a wrong length");
  AuthenticatorData out;
  out.host_sha256 = bytes.substr(0, kHostBytes);
  out.flags = static_cast<uint8_t>(bytes[kHostBytes]);
  for (size_t i = kHostBytes + 1; i < kFixedBytes; ++i)
    out.sign_count = out.sign_count << 8 | static_cast<unsigned char>(bytes[i]);
  bytes.remove_prefix(kFixedBytes);
  if ((out.flags & kHasCredential) == 0) return out;
  if (bytes.size() < kAaguidBytes + 2) return bad("authenticator data that end too early");
  bytes.remove_prefix(kAaguidBytes);
  const size_t size =
      static_cast<size_t>(static_cast<unsigned char>(bytes[0])) << 8 | static_cast<unsigned char>(bytes[1]);
  bytes.remove_prefix(2);
  if (size == 0 || size > kMaxCredentialBytes || size > bytes.size())
    return bad("the id of a passkey has 1 to 1023 bytes");
  out.credential = bytes.substr(0, size);
  bytes.remove_prefix(size);
  TH_TRY(const Cbor key, read_cbor(bytes));  // extensions may follow; none was asked for
  TH_TRY(out.key, read_cose_key(key));
  return out;
}

Result<AuthenticatorData> read_attestation(std::string_view bytes) {
  if (bytes.size() > kMaxBytes) return bad("an attestation object of over 8 KiB");
  TH_TRY(const Cbor object, read_cbor(bytes));
  if (!bytes.empty()) return bad("something follows the attestation object");
  const Cbor* data = object.find("authData");
  if (!data || data->kind != Cbor::Kind::kBytes) return bad("the attestation object has no authData");
  TH_TRY(AuthenticatorData out, read_authenticator_data(data->bytes));
  if (out.credential.empty()) return bad("no public key came along with the passkey");
  return out;
}

Result<Passkey> check_registration(const RelyingParty& party, const std::string& challenge,
                                   const Json& credential) {
  TH_TRY(const Json response, response_of(credential));
  TH_TRY(const std::string client_data, bytes_of(response, "clientDataJSON"));
  TH_RETURN_IF_ERROR(check_client_data(party, challenge, "webauthn.create", client_data));
  TH_TRY(const std::string attestation, bytes_of(response, "attestationObject"));
  TH_TRY(const AuthenticatorData data, read_attestation(attestation));
  TH_RETURN_IF_ERROR(check_authenticator(party, data));
  return Passkey{to_base64url(data.credential), data.key, data.sign_count};
}

Result<uint32_t> check_assertion(const RelyingParty& party, const std::string& challenge,
                                 const Passkey& passkey, const Json& credential) {
  TH_TRY(const Json response, response_of(credential));
  TH_TRY(const std::string client_data, bytes_of(response, "clientDataJSON"));
  TH_RETURN_IF_ERROR(check_client_data(party, challenge, "webauthn.get", client_data));
  TH_TRY(const std::string signed_data, bytes_of(response, "authenticatorData"));
  TH_TRY(const std::string signature, bytes_of(response, "signature"));
  TH_TRY(const AuthenticatorData data, read_authenticator_data(signed_data));
  TH_RETURN_IF_ERROR(check_authenticator(party, data));
  if (!verify_signature(passkey.key, signed_data + sha256_bytes(client_data), signature))
    return refused("its signature is wrong");
  const bool counts = data.sign_count != 0 || passkey.sign_count != 0;
  if (counts && data.sign_count <= passkey.sign_count)
    return refused("its counter went back: there may be a copy of it; register a new one");
  return data.sign_count;
}

}  // namespace th::access
