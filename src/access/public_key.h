#pragma once
// Public keys of passkeys and of identity providers, and what they signed. By OpenSSL.

#include <string>
#include <string_view>

#include "base/result.h"

namespace th::access {

enum class Algorithm {
  kEs256,  // ECDSA on P-256 with SHA-256
  kEdDsa,  // Ed25519
  kRs256,  // RSASSA-PKCS1-v1_5 with SHA-256
};
/// "ES256", "EdDSA", "RS256", as JOSE has them (RFC 7518, RFC 8037).
std::string_view name_of(Algorithm algorithm);

struct PublicKey {
  Algorithm algorithm = Algorithm::kEs256;
  std::string der;  // SubjectPublicKeyInfo
};

// All numbers big-endian. Errors: kInvalidArgument (lengths, a point that is not on the curve, RSA under 2048
// or over 4096 bits).
Result<PublicKey> p256_key(std::string_view x, std::string_view y);
Result<PublicKey> ed25519_key(std::string_view x);
Result<PublicKey> rsa_key(std::string_view n, std::string_view e);

/// "ES256:BASE64 of der", to keep and to read. Errors: kDataLoss.
std::string to_text(const PublicKey& key);
Result<PublicKey> public_key_from_text(std::string_view text);

/// An ES256 signature is in DER, as passkeys make it. Cost: under 1 ms. Thread: pure.
bool verify_signature(const PublicKey& key, std::string_view message, std::string_view signature);
/// The 64 bytes r‖s of JOSE in DER; empty: it has another length.
std::string der_of_jose_signature(std::string_view signature);

std::string sha256_bytes(std::string_view bytes);
/// Without padding (RFC 4648, section 5).
std::string to_base64url(std::string_view bytes);
/// Errors: kInvalidArgument naming `what`.
Result<std::string> from_base64url(std::string_view text, std::string_view what);

}  // namespace th::access
