#pragma once
// Frames of the WebSocket protocol (RFC 6455) without sockets: what the two ends of a joined tunnel speak.
// The controller between them passes bytes on and knows no frame.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::http {

enum class Opcode : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

/// A whole message: fragments are joined.
struct SocketMessage {
  Opcode opcode = Opcode::kBinary;
  std::string data;
};

/// One frame. A client sends with a `mask` (RFC 6455, 5.3: a fresh random one each), a server without.
std::string socket_frame(Opcode opcode, std::string_view data, std::optional<uint32_t> mask = {});

/// The value of Sec-WebSocket-Accept (RFC 6455, 4.2.2) for what Sec-WebSocket-Key said.
std::string socket_accept(std::string_view key);

/// Reads what the other end says. Not thread-safe.
class SocketReader {
 public:
  /// `masked`: the other end is a client and has to mask. Messages over `max_bytes` are refused.
  explicit SocketReader(bool masked, size_t max_bytes = size_t{1} << 20)
      : masked_(masked), max_bytes_(max_bytes) {}
  /// Takes bytes as they come, in any pieces; returns the messages that are whole now. Errors:
  /// kInvalidArgument (no frames by the RFC), kResourceExhausted (too long); from then on.
  Result<std::vector<SocketMessage>> feed(std::string_view bytes);

 private:
  Result<bool> take_frame(std::vector<SocketMessage>& whole);

  const bool masked_;
  const size_t max_bytes_;
  std::string input_;
  SocketMessage partial_;
  bool in_message_ = false;
  std::optional<Error> broken_;
};

}  // namespace th::http
