// A config that is accepted must survive being written and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = th::model::parse_model_config(text, "fuzz");
  if (config)
    TH_CHECK(th::model::parse_model_config(th::model::model_config_json(*config), "again") == *config);
  return 0;
}
