// What cloud-init wrote and what the metadata service says: values within their bounds, or an error without
// the secret.
#include <cstdint>
#include <cstdlib>

#include "node/azure.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto boot = th::node::read_azure_boot(text, "fuzzing")) {
    if (boot->set_secret.size() < 32 || boot->gpus < 0 || boot->expect.memory_bytes < 0) std::abort();
  }
  if (const auto instance = th::node::read_azure_instance(text)) {
    if (instance->name.empty() || instance->name.find('/') != std::string::npos) std::abort();
    if (instance->address.empty() || instance->address.size() > 45) std::abort();
  }
  return 0;
}
