// Attestation objects, authenticator data and CBOR: what was accepted must hold what the headers promise.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "access/cbor.h"
#include "access/passkey.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Seeds are text; whatever is no base64url is taken as it is.
  const std::string_view raw(reinterpret_cast<const char*>(data), size);
  const auto decoded = th::access::from_base64url(raw, "seed");
  const std::string_view text = decoded ? std::string_view(*decoded) : raw;
  std::string_view rest = text;
  if (th::access::read_cbor(rest) && !text.ends_with(rest)) std::abort();
  for (const auto& read : {th::access::read_attestation(text), th::access::read_authenticator_data(text)}) {
    if (!read || read->credential.empty()) continue;
    if (read->credential.size() > 1023 || read->host_sha256.size() != 32 || read->key.der.empty())
      std::abort();
    if (th::access::verify_signature(read->key, text, text)) std::abort();
  }
  return 0;
}
