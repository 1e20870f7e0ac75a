#pragma once
// Digests and signatures, by OpenSSL.

#include <memory>
#include <string>
#include <string_view>

namespace th::storage {

/// A digest fed piece by piece. Thread: one owner.
class Digest {
 public:
  enum class Kind { kSha256, kMd5 };
  explicit Digest(Kind kind);
  ~Digest();
  void add(std::string_view bytes);
  /// The digest's bytes; nothing may be added after it.
  std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string md5(std::string_view bytes);
std::string hmac_sha256(std::string_view key, std::string_view text);
std::string to_hex(std::string_view bytes);

}  // namespace th::storage
