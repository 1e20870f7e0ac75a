#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "request/slice_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto body = th::parse_json({reinterpret_cast<const char*>(data), size}, "body");
  if (!body) return 0;
  auto spec = th::request::slice_spec_from_json(*body);
  if (spec) {
    auto again = th::request::slice_spec_from_json(th::request::to_json(*spec));
    TH_CHECK(again.has_value() && *again == *spec);
  } else {
    TH_CHECK(spec.error().code == th::Code::kInvalidArgument);
  }
  return 0;
}
