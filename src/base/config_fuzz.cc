#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/json.h"
#include "base/units.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto config = th::Config::parse(text, "fuzz.yaml", {"name", "racks", "a", "b", "t"})) {
    (void)config->maps("racks", {"id", "power_budget_w", "tags"});
    (void)config->duration_ns_or("t", 0);
    (void)config->strings("a");
    (void)config->string_map("b");
  }
  (void)th::parse_json(text, "fuzz");
  (void)th::parse_duration_ns(text);
  (void)th::parse_bytes(text);
  (void)th::parse_money_microusd(text);
  return 0;
}
