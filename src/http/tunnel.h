#pragma once
// A connection that is handed over (HTTP 101): from then on bytes go both ways as they are. The server joins
// two of them; a client gets a descriptor.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/files.h"
#include "base/result.h"
#include "http/client.h"

namespace th::http {

class Exchange;

/// The server's side: a request that was answered with 101 (Responder::tunnel). Copies share it. Thread: safe
/// from any thread.
class Tunnel {
 public:
  explicit Tunnel(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  /// What comes from one goes to the other. One reads only as fast as the other takes it (at most two pieces
  /// of 8 KiB lie between them); where one ends, the other is closed after what is still for it.
  static void join(const Tunnel& a, const Tunnel& b);
  void close() const;
  bool alive() const;

 private:
  std::shared_ptr<Exchange> exchange_;
};

/// The client's side: a stream socket to read, write and poll; its end is the end of the connection. With TLS
/// a thread of its own carries bytes between it and the wire.
struct ClientTunnel {
  UniqueFd fd;
  std::string early;  // what came with the answer, before anything that fd gives
  std::jthread carrier = {};
};

/// Asks for the upgrade; call.headers say to what (Upgrade, …). Waits at most call.timeout_ns for the answer.
/// Errors: those of fetch(); an answer other than 101 as error_of(response). Blocking, thread-safe.
Result<ClientTunnel> open_tunnel(const Call& call);

}  // namespace th::http
