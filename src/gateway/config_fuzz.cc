#include <cstdint>
#include <string_view>

#include "gateway/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto config = th::gateway::parse_gateway_config({reinterpret_cast<const char*>(data), size});
  if (!config) return 0;
  for (const auto& [name, deployment] : (*config)->deployments) {
    TH_CHECK(deployment.name == name && deployment.filter != nullptr && deployment.tokens_per_minute >= 0);
  }
  return 0;
}
