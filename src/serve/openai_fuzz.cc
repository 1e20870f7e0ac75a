// The body of a completion request: whatever it is, it is parsed or refused with a reason.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "serve/openai.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::serve;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const Endpoint endpoint : {Endpoint::kCompletions, Endpoint::kChat}) {
    const auto request = parse_request(endpoint, body);
    if (request) {
      TH_CHECK(request->sampling.temperature >= 0 && request->sampling.temperature <= 2);
      TH_CHECK(!request->max_tokens || *request->max_tokens >= 1);
      for (const std::string& stop : request->stop) TH_CHECK(!stop.empty());
    } else {
      TH_CHECK(!request.error().message.empty());
      TH_CHECK(!api_error_response(request.error()).body.empty());
    }
  }
  return 0;
}
