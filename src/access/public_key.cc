#include "access/public_key.h"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include <array>
#include <memory>
#include <utility>

#include "base/base64.h"
#include "base/free_by.h"

namespace th::access {
namespace {

using Pkey = std::unique_ptr<EVP_PKEY, FreeBy<EVP_PKEY_free>>;
using PkeyContext = std::unique_ptr<EVP_PKEY_CTX, FreeBy<EVP_PKEY_CTX_free>>;
using ParamBuilder = std::unique_ptr<OSSL_PARAM_BLD, FreeBy<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, FreeBy<OSSL_PARAM_free>>;
using Number = std::unique_ptr<BIGNUM, FreeBy<BN_free>>;

constexpr int kMinRsaBits = 2048, kMaxRsaBits = 4096;

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

Number number_of(std::string_view big_endian) {
  return Number(BN_bin2bn(bytes_of(big_endian), static_cast<int>(big_endian.size()), nullptr));
}

Pkey key_from(const char* type, OSSL_PARAM* params) {
  PkeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* made = nullptr;
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &made, EVP_PKEY_PUBLIC_KEY, params) != 1)
    return nullptr;
  Pkey key(made);
  PkeyContext check(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  return check && EVP_PKEY_public_check(check.get()) == 1 ? std::move(key) : nullptr;
}

Result<PublicKey> wrap(Algorithm algorithm, const Pkey& key) {
  ERR_clear_error();
  if (!key) return fail(Code::kInvalidArgument, fmt::format("not a public key for {}", name_of(algorithm)));
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  TH_CHECK(size > 0);
  PublicKey out{algorithm, std::string(reinterpret_cast<char*>(der), static_cast<size_t>(size))};
  OPENSSL_free(der);
  return out;
}

}  // namespace

std::string_view name_of(Algorithm algorithm) {
  constexpr std::array<std::string_view, 3> kNames = {"ES256", "EdDSA", "RS256"};
  return kNames[static_cast<size_t>(algorithm)];
}

Result<PublicKey> p256_key(std::string_view x, std::string_view y) {
  if (x.size() != 32 || y.size() != 32)
    return fail(Code::kInvalidArgument, "a key on P-256 has two numbers of 32 bytes");
  std::string point = "\x04";
  point.append(x).append(y);
  ParamBuilder builder(OSSL_PARAM_BLD_new());
  TH_CHECK(builder);
  OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0);
  OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size());
  const Params params(OSSL_PARAM_BLD_to_param(builder.get()));
  return wrap(Algorithm::kEs256, key_from("EC", params.get()));
}

Result<PublicKey> ed25519_key(std::string_view x) {
  if (x.size() != 32) return fail(Code::kInvalidArgument, "a key for Ed25519 has 32 bytes");
  return wrap(Algorithm::kEdDsa,
              Pkey(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes_of(x), x.size())));
}

Result<PublicKey> rsa_key(std::string_view n, std::string_view e) {
  const Number modulus = number_of(n), exponent = number_of(e);
  TH_CHECK(modulus && exponent);
  const int bits = BN_num_bits(modulus.get());
  if (bits < kMinRsaBits || bits > kMaxRsaBits || BN_num_bits(exponent.get()) > 64 ||
      BN_is_odd(exponent.get()) != 1 || BN_is_one(exponent.get()) == 1)
    return fail(Code::kInvalidArgument,
                fmt::format("an RSA key of {} bits; want {} to {} and a usual exponent", bits, kMinRsaBits,
                            kMaxRsaBits));
  ParamBuilder builder(OSSL_PARAM_BLD_new());
  TH_CHECK(builder);
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get());
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get());
  const Params params(OSSL_PARAM_BLD_to_param(builder.get()));
  return wrap(Algorithm::kRs256, key_from("RSA", params.get()));
}

std::string to_text(const PublicKey& key) {
  return fmt::format("{}:{}", name_of(key.algorithm), to_base64(key.der));
}

Result<PublicKey> public_key_from_text(std::string_view text) {
  for (const Algorithm algorithm : {Algorithm::kEs256, Algorithm::kEdDsa, Algorithm::kRs256}) {
    const std::string_view name = name_of(algorithm);
    if (!text.starts_with(name) || text.substr(name.size(), 1) != ":") continue;
    if (auto der = from_base64(text.substr(name.size() + 1))) return PublicKey{algorithm, *std::move(der)};
  }
  return fail(Code::kDataLoss, "a kept public key cannot be read");
}

bool verify_signature(const PublicKey& key, std::string_view message, std::string_view signature) {
  const unsigned char* at = bytes_of(key.der);
  const Pkey pkey(d2i_PUBKEY(nullptr, &at, static_cast<long>(key.der.size())));
  const std::unique_ptr<EVP_MD_CTX, FreeBy<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  const EVP_MD* digest = key.algorithm == Algorithm::kEdDsa ? nullptr : EVP_sha256();
  const bool good = pkey && context &&
                    EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, pkey.get()) == 1 &&
                    EVP_DigestVerify(context.get(), bytes_of(signature), signature.size(), bytes_of(message),
                                     message.size()) == 1;
  ERR_clear_error();
  return good;
}

std::string der_of_jose_signature(std::string_view signature) {
  if (signature.size() != 64) return "";
  const std::unique_ptr<ECDSA_SIG, FreeBy<ECDSA_SIG_free>> both(ECDSA_SIG_new());
  TH_CHECK(both && ECDSA_SIG_set0(both.get(), number_of(signature.substr(0, 32)).release(),
                                  number_of(signature.substr(32)).release()) == 1);
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(both.get(), &der);
  TH_CHECK(size > 0);
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return out;
}

std::string sha256_bytes(std::string_view bytes) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(bytes_of(bytes), bytes.size(), reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

std::string to_base64url(std::string_view bytes) {
  std::string text = to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

Result<std::string> from_base64url(std::string_view text, std::string_view what) {
  std::string standard(text);
  bool good = standard.find_first_of("+/=") == standard.npos;
  for (char& c : standard) c = c == '-' ? '+' : c == '_' ? '/' : c;
  while (standard.size() % 4 != 0) standard += '=';
  auto bytes = good ? from_base64(standard) : std::nullopt;
  if (bytes) return *std::move(bytes);
  return fail(Code::kInvalidArgument, fmt::format("field '{}': want base64url without padding", what));
}

}  // namespace th::access
