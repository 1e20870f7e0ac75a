#include <cstdint>
#include <string_view>

#include "gateway/openai.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::gateway;
  std::string_view body(reinterpret_cast<const char*>(data), size);
  for (Endpoint endpoint : {Endpoint::kCompletions, Endpoint::kChat}) {
    auto request = parse_completion_request(endpoint, body, "");
    if (!request) continue;
    TH_CHECK(request->estimated_tokens >= request->prompt_tokens && request->choices >= 1);
    // What goes to the replica is a good request itself.
    auto again = parse_completion_request(endpoint, request->upstream_body, "");
    TH_CHECK(again && again->stream && again->include_usage &&
             again->estimated_tokens == request->estimated_tokens);
  }
  return 0;
}
