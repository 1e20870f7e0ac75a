#pragma once
// One client of the server: its bytes in and out, in clear or by TLS. Internal.

#include <cstdint>
#include <memory>

#include "base/files.h"
#include "http/exchange.h"
#include "http/server.h"

namespace boost::asio {
class io_context;
}

namespace th::http {

class TlsContext;

/// Thread: all of it is safe from any thread.
class Connection : public ExchangeSink {
 public:
  virtual void start() = 0;
  /// When it has to be cut, by Env's monotonic clock.
  virtual int64_t deadline_ns() const = 0;
};

/// What connections need of their server; they keep it alive.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual const ServerOptions& options() const = 0;
  virtual const Router& router() const = 0;
  /// The connection is closed. Thread: any.
  virtual void forget(Connection* connection) = 0;
};

struct Accepted {
  UniqueFd fd;
  bool v6 = false;
  std::shared_ptr<const TlsContext> tls = {};  // none: in clear
};
std::shared_ptr<Connection> make_connection(std::shared_ptr<ConnectionHost> host, boost::asio::io_context& io,
                                            Accepted accepted);

}  // namespace th::http
