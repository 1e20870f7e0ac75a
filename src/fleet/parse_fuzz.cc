#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fleet/fleet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto fleet = th::fleet::parse_fleet({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
  if (fleet) {
    for (const auto& host : fleet->hosts()) TH_CHECK(fleet->find_host(host.id).has_value());
  } else {
    TH_CHECK(fleet.error().code == th::Code::kInvalidArgument &&
             fleet.error().message.starts_with("fuzz.yaml"));
  }
  return 0;
}
