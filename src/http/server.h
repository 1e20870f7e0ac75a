#pragma once
// An HTTP/1.1 server: handlers are called on its threads and may answer later, from any thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/message.h"
#include "http/tls.h"

namespace th::http {

/// A response whose body is sent piece by piece (chunked). Copies share one stream. Thread: safe from any
/// thread.
class Stream {
 public:
  /// Queues `bytes`. Returns false when the client is gone or more than ServerOptions::max_queued_bytes wait:
  /// the stream is then dead, and the caller stops its work.
  bool write(std::string_view bytes);
  /// One server-sent event: "id: …\nevent: …\ndata: …\n\n"; `id` and `event` are left out when empty. `data`
  /// has no newline.
  bool event(std::string_view data, std::string_view event = {}, std::string_view id = {});
  /// Ends the body. Later writes return false.
  void close();
  bool alive() const;
  /// Called once, on a server thread, when the client goes away before close(); at once if it already has.
  void on_gone(std::function<void()> callback);

  class Impl;
  explicit Stream(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

class Tunnel;

/// The right to answer one request, once. Copies share it; if the last copy goes without an answer, 500 is
/// sent. Thread: safe from any thread.
class Responder {
 public:
  void send(Response response) const;
  void send(const Json& body, int status = 200) const;
  /// In ServerOptions::error_form. `status` 0: that of the error's code.
  void fail(const Error& error, int status = 0, Headers headers = {}) const;
  /// Sends status and headers at once.
  Stream stream(int status, Headers headers) const;
  /// 101 with `headers` (Upgrade, …): the connection is a tunnel from here on. See tunnel.h.
  Tunnel tunnel(Headers headers) const;
  /// text/event-stream with no-cache.
  Stream event_stream() const;
  /// Called once, on a server thread, when the client goes away before the answer was sent; at once if it
  /// already has.
  void on_gone(std::function<void()> callback) const;

  class Impl;
  explicit Responder(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

using Handler = std::function<void(Request, Responder)>;

/// Routes by method and pattern. A pattern segment "{name}" matches one segment; a last "{name...}" matches
/// the rest. A literal segment wins over "{name}". No match: 404 not_found; a match with another method: 405
/// with Allow.
class Router {
 public:
  void add(std::string_view method, std::string_view pattern, Handler handler);
  /// Runs before every route's handler; an error is the answer (keys, limits).
  void before(std::function<Status(const Request&)> check);
  void route(Request request, Responder responder) const;
  /// Method and pattern of every route.
  std::vector<std::pair<std::string, std::string>> routes() const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
  };
  std::vector<Route> routes_;
  std::vector<std::function<Status(const Request&)>> checks_;
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one, see Server::port
  int threads = 1;
  size_t max_body_bytes = size_t{1} << 20;     // more: 413, and the connection is closed
  size_t max_header_bytes = size_t{16} << 10;  // more: 431
  size_t max_queued_bytes = size_t{1} << 20;   // of one stream
  size_t max_connections = 4096;               // more wait in the kernel's backlog
  int64_t idle_timeout_ns = 75'000'000'000;    // a connection that sends nothing and waits for nothing
  std::optional<ServerTls> tls = {};           // none: HTTP
  ErrorForm error_form = error_response;
  std::shared_ptr<const Headers> headers = {};  // of every answer of a handler that does not have them itself
};

class Server {
 public:
  /// With TLS a client that speaks plain HTTP is told so with 400.
  /// Errors: kAlreadyExists (the port is taken; names address and port), kInvalidArgument (address,
  /// certificate), kPermissionDenied.
  static Result<std::unique_ptr<Server>> start(ServerOptions options, Router router);
  /// Stops accepting, drops connections, joins its threads.
  ~Server();
  uint16_t port() const;
  size_t connections() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::http
