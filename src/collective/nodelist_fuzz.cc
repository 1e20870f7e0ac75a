// Any text as a list of nodes: refused, or a first host that is one itself.
#include <cstdint>
#include <string_view>

#include "collective/collective.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto host = th::collective::first_host({reinterpret_cast<const char*>(data), size});
  if (host) TH_CHECK(th::collective::first_host(*host) == *host);
  return 0;
}
