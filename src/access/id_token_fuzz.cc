// ID tokens and the keys of a provider: the first line is the token, what follows the set of keys.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "access/id_token.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const auto keys = th::parse_json(text.substr(std::min(line + 1, text.size())), "keys");
  const th::access::IdTokenRules rules{"https://issuer.example", "thunderhead", "nonce",
                                       1'800'000'000'000'000'000};
  const auto identity =
      th::access::check_id_token(text.substr(0, line), keys ? *keys : th::Json::object(), rules);
  if (identity && (identity->subject.empty() || identity->subject.size() > 255)) std::abort();
  return 0;
}
