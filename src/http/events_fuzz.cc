// A stream of events reads the same in one piece and byte by byte.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "http/client.h"

namespace {

std::string read_all(std::string_view stream, size_t piece) {
  th::http::EventReader reader;
  std::string all;
  for (size_t at = 0; at < stream.size(); at += piece) {
    auto events = reader.feed(stream.substr(at, piece));
    if (!events) return "error";
    for (const auto& event : *events) all += event.id + "\x01" + event.event + "\x01" + event.data + "\x02";
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view stream(reinterpret_cast<const char*>(data), size);
  if (read_all(stream, stream.size() + 1) != read_all(stream, 1)) std::abort();
  return 0;
}
