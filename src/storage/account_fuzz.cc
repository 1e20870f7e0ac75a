// Connection strings and places, whatever stands in them: an account whose secret can only go to a checked
// address, or an error that does not repeat the secret.
#include <cstdint>
#include <cstdlib>

#include "storage/account.h"

using namespace th::storage;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto place = parse_place(text)) {
    if (place->prefix.find("//") != std::string::npos || place->prefix.starts_with('/')) std::abort();
    if (parse_place(place->text())->text() != place->text()) std::abort();
  }
  const auto account = parse_connection_string(text, "fuzzing");
  if (!account) return account.error().message.size() > 500 ? (std::abort(), 0) : 0;
  if (account->key.empty() && account->sas.empty()) std::abort();
  if (!account->endpoint.starts_with("https://") &&
      account->endpoint.find("//127.0.0.1") == std::string::npos &&
      account->endpoint.find("//localhost") == std::string::npos &&
      account->endpoint.find("//[::1]") == std::string::npos)
    std::abort();
  return 0;
}
