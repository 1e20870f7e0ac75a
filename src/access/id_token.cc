#include "access/id_token.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "access/public_key.h"
#include "base/text.h"
#include "base/units.h"

namespace th::access {
namespace {

constexpr size_t kMaxTokenBytes = size_t{32} << 10;
constexpr size_t kMaxSubject = 255;  // OpenID Connect Core 1.0, section 2
constexpr int64_t kSkewS = 60;
constexpr int64_t kMaxAgeS = 10 * 60;  // since it was made, for us

tl::unexpected<Error> refuse(std::string problem) {
  return fail(Code::kUnauthenticated, "the provider's ID token is refused: " + std::move(problem));
}

std::string text_in(const Json& object, const char* field) {
  return object.is_object() ? get_string(object, field, "").value_or("") : "";
}

Result<Json> part_of(std::string_view text, const char* what) {
  auto bytes = from_base64url(text, what);
  auto json = bytes ? parse_json(*bytes, what) : fail(bytes.error());
  if (json && json->is_object()) return json;
  return refuse(fmt::format("its {} is no JSON object in base64url", what));
}

Result<PublicKey> read_jwk(const Json& jwk, const std::string& algorithm) {
  if (algorithm == "ES256" && text_in(jwk, "kty") == "EC" && text_in(jwk, "crv") == "P-256") {
    TH_TRY(const std::string x, from_base64url(text_in(jwk, "x"), "x"));
    TH_TRY(const std::string y, from_base64url(text_in(jwk, "y"), "y"));
    return p256_key(x, y);
  }
  if (algorithm == "RS256" && text_in(jwk, "kty") == "RSA") {
    TH_TRY(const std::string n, from_base64url(text_in(jwk, "n"), "n"));
    TH_TRY(const std::string e, from_base64url(text_in(jwk, "e"), "e"));
    return rsa_key(n, e);
  }
  return fail(Code::kInvalidArgument, "another kind of key");
}

/// Some key of the set that the header allows made the signature.
bool is_signed(std::string_view message, std::string_view signature, const Json& keys, const Json& header) {
  const std::string algorithm = text_in(header, "alg"), wanted = text_in(header, "kid");
  const std::string der = algorithm == "ES256" ? der_of_jose_signature(signature) : std::string(signature);
  if (!keys.is_object() || !keys.contains("keys") || !keys["keys"].is_array()) return false;
  for (const Json& jwk : keys["keys"]) {
    const std::string use = text_in(jwk, "use"), id = text_in(jwk, "kid");
    const bool fits = (use.empty() || use == "sig") && (wanted.empty() || id.empty() || id == wanted);
    const auto key = fits ? read_jwk(jwk, algorithm) : fail(Code::kNotFound, "");
    if (key && verify_signature(*key, message, der)) return true;
  }
  return false;
}

Status check_audience(const Json& claims, const std::string& client_id) {
  const auto audience = claims.find("aud");
  const bool one = audience != claims.end() && *audience == Json(client_id);
  const bool among = audience != claims.end() && audience->is_array() &&
                     std::ranges::find(*audience, Json(client_id)) != audience->end();
  if (!one && !among) return refuse("it is for another client");
  const std::string party = text_in(claims, "azp");
  const bool several = among && audience->size() > 1;
  if ((several || !party.empty()) && party != client_id) return refuse("it was made for another client");
  return {};
}

Status check_times(const Json& claims, int64_t now_ns) {
  const int64_t now_s = now_ns / kSecond;
  const auto expires = get_int(claims, "exp"), issued = get_int(claims, "iat"),
             begins = get_int(claims, "nbf", 0);
  if (!expires || !issued || !begins) return refuse("it does not say when it was made and ends");
  if (*expires <= now_s - kSkewS) return refuse("it has ended; are the clocks right?");
  if (*issued > now_s + kSkewS || *begins > now_s + kSkewS)
    return refuse("it is from the future; are the clocks right?");
  if (*issued < now_s - kMaxAgeS) return refuse("it is over ten minutes old");
  return {};
}

}  // namespace

Result<Identity> check_id_token(std::string_view token, const Json& keys, const IdTokenRules& rules) {
  if (token.size() > kMaxTokenBytes) return refuse("it is over 32 KiB");
  const size_t first = token.find('.'), last = token.rfind('.');
  if (first == token.npos || first == last || token.find('.', first + 1) != last)
    return refuse("it is no signed JWT of three parts");
  TH_TRY(const Json header, part_of(token.substr(0, first), "header"));
  const std::string algorithm = text_in(header, "alg");
  if (algorithm != "RS256" && algorithm != "ES256") return refuse("its algorithm is neither RS256 nor ES256");
  if (header.contains("crit")) return refuse("it has critical extensions");
  const auto signature = from_base64url(token.substr(last + 1), "signature");
  if (!signature || !is_signed(token.substr(0, last), *signature, keys, header))
    return refuse("no key of the provider made its signature");
  TH_TRY(const Json claims, part_of(token.substr(first + 1, last - first - 1), "claims"));
  if (text_in(claims, "iss") != rules.issuer) return refuse("it is of another issuer than " + rules.issuer);
  TH_RETURN_IF_ERROR(check_audience(claims, rules.client_id));
  TH_RETURN_IF_ERROR(check_times(claims, rules.now_ns));
  if (rules.nonce.empty() || !equal_secret(text_in(claims, "nonce"), rules.nonce))
    return refuse("it answers another sign-in");
  Identity out{text_in(claims, "sub"), text_in(claims, "preferred_username"), text_in(claims, "email")};
  if (out.subject.empty() || out.subject.size() > kMaxSubject) return refuse("it names no subject");
  return out;
}

}  // namespace th::access
