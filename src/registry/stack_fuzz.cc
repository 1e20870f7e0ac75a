#include <cstdint>

#include "registry/stack.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)th::registry::parse_stack({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
  return 0;
}
