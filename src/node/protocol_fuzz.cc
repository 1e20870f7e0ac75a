// Any bytes as any of the messages: refused, or read into a value that survives a round trip.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "node/protocol.h"

using namespace th;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto json = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!json) return 0;
  if (auto request = node::sync_request_from_json(*json)) {
    auto again = node::sync_request_from_json(node::to_json(*request));
    TH_CHECK(again && *again == *request);
  }
  if (auto reply = node::sync_reply_from_json(*json)) {
    auto again = node::sync_reply_from_json(node::to_json(*reply));
    TH_CHECK(again && *again == *reply);
  }
  return 0;
}
