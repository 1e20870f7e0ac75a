#pragma once
// Bytes of HTTP/1.1 to messages and back, without sockets: Beast's parsers behind plain structs. For
// server.cc, client.cc and the fuzz targets.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "http/message.h"

namespace th::http {

/// What feeding some bytes led to. The caller drops the `consumed` bytes and brings the rest again with more.
struct Fed {
  size_t consumed = 0;
  bool done = false;    // the message is whole
  int bad_status = 0;   // 400, 413 or 431 when the bytes are refused, else 0
  std::string problem;  // with bad_status
};

/// Reads one request.
class RequestReader {
 public:
  RequestReader(size_t max_header_bytes, size_t max_body_bytes);
  ~RequestReader();
  Fed feed(std::string_view bytes);
  /// The header is there and asks for "100 Continue" before its body.
  bool wants_continue() const;

  // When done:
  bool keep_alive() const;
  bool http_1_0() const;
  /// `path` holds the raw target; query, params and peer are left to the caller.
  Request take();

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

/// Reads one response piece by piece; 1xx answers are skipped.
class ResponseReader {
 public:
  /// `no_body`: it answers a HEAD.
  explicit ResponseReader(bool no_body);
  ~ResponseReader();
  Fed feed(std::string_view bytes);
  /// The peer closed: fine where the body ends so, else an error. Errors: kUnavailable.
  Status feed_end();
  bool has_head() const;
  int status() const;
  Headers headers() const;
  /// The body's bytes since the last call.
  std::string take_body();

 private:
  struct Parser;
  void restart();
  bool no_body_;
  std::unique_ptr<Parser> parser_;
};

struct HeadOptions {
  std::optional<size_t> content_length = {};  // none: chunked, or to the end of the connection
  bool chunked = false;
  bool keep_alive = true;
};
/// Status line and headers with the empty line. Headers that the server owns (Content-Length,
/// Transfer-Encoding, Connection, Date) or that hold a line break are left out of `headers`.
std::string render_head(int status, const Headers& headers, const HeadOptions& options);
/// The head of a 101, with "Connection: Upgrade".
std::string render_upgrade(const Headers& headers);
/// A request's head. Errors: kInvalidArgument (a line break in a header or in the method).
Result<std::string> render_request(std::string_view method, std::string_view target, std::string_view host,
                                   const Headers& headers, size_t body_bytes);

}  // namespace th::http
