#pragma once
// Passwords of people, kept as argon2id hashes (RFC 9106).

#include <string>
#include <string_view>

#include "base/result.h"

namespace th::access {

/// Fit to be taken as the new password of `name`: 12 to 256 bytes and not made of the name or of few
/// different characters. Errors: kInvalidArgument, saying which; never the password.
Status check_password(std::string_view password, std::string_view name);

/// "$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH" with a fresh salt. Cost: about 40 ms and 19 MiB, so never on a
/// loop thread. Thread: pure. Errors: kInternal (out of memory).
Result<std::string> hash_password(std::string_view password);

/// Compares in constant time. Whoever has no hash gets kNobodysHash, so that an answer takes as long for a
/// name that does not exist. Cost: that of hash_password. Thread: pure.
bool verify_password(std::string_view password, const std::string& hash);
/// No password fits.
extern const char* const kNobodysHash;

/// It was made with other costs than hash_password has now.
bool is_outdated(const std::string& hash);

}  // namespace th::access
