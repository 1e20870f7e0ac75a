#include "storage/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/result.h"

namespace th::storage {

struct Digest::Context {
  Context() : evp(EVP_MD_CTX_new()) {}
  ~Context() { EVP_MD_CTX_free(evp); }
  EVP_MD_CTX* evp;
};

Digest::Digest(Kind kind) : context_(std::make_unique<Context>()) {
  const EVP_MD* type = kind == Kind::kSha256 ? EVP_sha256() : EVP_md5();
  TH_CHECK(context_->evp && EVP_DigestInit_ex(context_->evp, type, nullptr) == 1);
}

Digest::~Digest() = default;

void Digest::add(std::string_view bytes) {
  TH_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

std::string Digest::finish() {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  TH_CHECK(EVP_DigestFinal_ex(context_->evp, out, &size) == 1);
  return {reinterpret_cast<char*>(out), size};
}

std::string md5(std::string_view bytes) {
  Digest digest(Digest::Kind::kMd5);
  digest.add(bytes);
  return digest.finish();
}

std::string hmac_sha256(std::string_view key, std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  TH_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                reinterpret_cast<const unsigned char*>(text.data()), text.size(), out, &size) != nullptr);
  return {reinterpret_cast<char*>(out), size};
}

std::string to_hex(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return out;
}

}  // namespace th::storage
