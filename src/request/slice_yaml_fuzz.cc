#include <cstddef>
#include <cstdint>
#include <string_view>

#include "request/slice_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto spec = th::request::parse_slice_spec({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
  if (spec) {
    TH_CHECK(th::request::validate(*spec).has_value());
  } else {
    TH_CHECK(spec.error().message.starts_with("fuzz.yaml"));
  }
  return 0;
}
