// Frames from the other end, whole and in pieces: the same messages, or the same refusal.

#include <cstdint>

#include "http/websocket.h"

namespace {

std::string read_all(std::string_view bytes, size_t piece, bool masked) {
  th::http::SocketReader reader(masked, 4096);
  std::string out;
  for (size_t at = 0; at < bytes.size() + piece; at += piece) {  // the last feed brings nothing
    auto messages = reader.feed(at < bytes.size() ? bytes.substr(at, piece) : std::string_view());
    if (!messages) return out + "refused";
    for (const auto& message : *messages) {
      out += std::to_string(static_cast<int>(message.opcode)) + message.data;
      th::http::SocketReader again(true);
      auto echoed = again.feed(th::http::socket_frame(message.opcode, message.data, 0x01020304));
      TH_CHECK(echoed && echoed->size() == 1 && echoed->front().data == message.data);
    }
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool masked = data[0] & 1;
  TH_CHECK(read_all(bytes, bytes.size() + 1, masked) == read_all(bytes, 1, masked));
  return 0;
}
