#pragma once
// Events of what people sign in with (event_types.h has the rules). A password is there as its argon2id hash
// only, a passkey as its public key; nothing that signs anybody in is in the clear.

#include <cstdint>
#include <string>

#include "ledger/event_fields.h"

namespace th::ledger {

/// hash: "$argon2id$…"; "": the user has none any more. It is never told to anybody.
struct PasswordSet {
  std::string user, hash;
  TH_EVENT("password_set") { v("user", e.user), v("hash", e.hash); }
};
/// Who has the code may set a new password, once, until then; of a user's codes the last one holds, and it
/// ends with a new password or role. by: who made it.
struct PasswordResetMade {
  std::string user, code_sha256, by;
  int64_t expires_ns = 0;
  TH_EVENT("password_reset_made") {
    v("user", e.user), v("code_sha256", e.code_sha256), v("by", e.by), v("expires_ns", e.expires_ns);
  }
};

/// passkey: id of the credential, base64url. key: "ES256:…", as access::to_text writes it. host: the name
/// that it is bound to. name: what its user calls it.
struct PasskeyAdded {
  std::string user, passkey, key, host, name;
  int64_t sign_count = 0;
  TH_EVENT("passkey_added") {
    v("user", e.user), v("passkey", e.passkey), v("key", e.key), v("host", e.host), v("name", e.name);
    v("sign_count", e.sign_count);
  }
};
/// Its user signed in with it.
struct PasskeyUsed {
  std::string passkey;
  int64_t sign_count = 0;
  TH_EVENT("passkey_used") { v("passkey", e.passkey), v("sign_count", e.sign_count); }
};
struct PasskeyRemoved {
  std::string passkey;
  TH_EVENT("passkey_removed") { v("passkey", e.passkey); }
};

/// Whom the provider of OpenID Connect knows as `subject` is this user from here on.
struct SubjectLinked {
  std::string user, issuer, subject;
  TH_EVENT("subject_linked") { v("user", e.user), v("issuer", e.issuer), v("subject", e.subject); }
};

}  // namespace th::ledger
