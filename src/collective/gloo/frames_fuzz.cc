// Any bytes as a stream of frames: refused, or read into values that survive a round trip. What starts with
// '{' is put into a frame first, so that seeds are text and mutations reach the payload.
#include <cstdint>
#include <string_view>

#include "collective/gloo/frames.h"

using namespace th;
using namespace th::collective;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMax = 1 << 16;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('{')) {
    Frame frame{FrameKind::kHello, 1, std::move(bytes)};
    bytes.clear();
    append_frame(bytes, frame);
  }
  FrameReader reader(kMax);
  reader.feed(bytes);
  for (;;) {
    auto frame = reader.next();
    if (!frame || !*frame) return 0;
    std::string copy;
    append_frame(copy, **frame);
    FrameReader again(kMax);
    again.feed(copy);
    auto second = again.next();
    TH_CHECK(second && *second && (*second)->payload == (*frame)->payload &&
             (*second)->rank == (*frame)->rank);
    const std::string& payload = (*frame)->payload;
    if (auto hello = parse_hello(payload)) TH_CHECK(parse_hello(to_payload(*hello)).has_value());
    if (auto beat = parse_beat(payload)) TH_CHECK(*parse_beat(to_payload(*beat)) == *beat);
    if (auto welcome = parse_welcome(payload))
      TH_CHECK(parse_welcome(to_payload(*welcome))->places.size() == welcome->places.size());
  }
}
