#include "access/password.h"

#include <argon2.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <random>
#include <set>

#include "base/text.h"

namespace th::access {
namespace {

// The least memory that OWASP's Password Storage Cheat Sheet allows for argon2id with two passes and one
// lane, so that a flood of sign-ins does not take the memory of the machine:
// https://cheatsheetseries.owasp.org
constexpr uint32_t kMemoryKib = 19456, kPasses = 2, kLanes = 1;
constexpr size_t kSaltBytes = 16, kHashBytes = 32;  // RFC 9106, section 4
// NIST SP 800-63B-4, 3.1.1.2: 15 characters where nothing else is asked, at least 8; rates are limited here.
constexpr size_t kMinPassword = 12, kMaxPassword = 256;
constexpr size_t kMinDifferent = 5;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

}  // namespace

const char* const kNobodysHash =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

Status check_password(std::string_view password, std::string_view name) {
  if (password.size() < kMinPassword || password.size() > kMaxPassword)
    return fail(Code::kInvalidArgument, fmt::format("field 'password': it has {} characters; want {} to {}",
                                                    password.size(), kMinPassword, kMaxPassword));
  if (std::set<char>(password.begin(), password.end()).size() < kMinDifferent)
    return fail(Code::kInvalidArgument,
                fmt::format("field 'password': want at least {} different characters", kMinDifferent));
  if (name.size() >= 3 && lower(password).find(lower(name)) != std::string::npos)
    return fail(Code::kInvalidArgument, "field 'password': it holds the name; choose another");
  return {};
}

Result<std::string> hash_password(std::string_view password) {
  std::array<unsigned char, kSaltBytes> salt{};
  std::random_device random;  // the operating system's
  for (auto& byte : salt) byte = static_cast<unsigned char>(random());
  std::array<char, 256> hash{};
  const int status = argon2id_hash_encoded(kPasses, kMemoryKib, kLanes, password.data(), password.size(),
                                           salt.data(), salt.size(), kHashBytes, hash.data(), hash.size());
  if (status != ARGON2_OK)
    return fail(Code::kInternal, fmt::format("hashing a password: {}", argon2_error_message(status)));
  return std::string(hash.data());
}

bool verify_password(std::string_view password, const std::string& hash) {
  if (password.size() > kMaxPassword) return false;
  return argon2id_verify(hash.c_str(), password.data(), password.size()) == ARGON2_OK;
}

bool is_outdated(const std::string& hash) {
  return !hash.starts_with(fmt::format("$argon2id$v=19$m={},t={},p={}$", kMemoryKib, kPasses, kLanes));
}

}  // namespace th::access
