#include "http/wire.h"

#include <fmt/format.h>
#include <strings.h>

#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/parser.hpp>
#include <ctime>

namespace th::http {
namespace {

namespace beast = boost::beast;
namespace bhttp = boost::beast::http;

constexpr size_t kMaxResponseHeaderBytes = size_t{64} << 10;

/// A string that grows with what arrives: Beast's own string_body reserves what Content-Length claims.
struct GrowingBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool isRequest, class Fields>
    reader(bhttp::header<isRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<uint64_t>&, beast::error_code& ec) { ec = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, beast::error_code& ec) {
      ec = {};
      size_t total = 0;
      for (auto buffer : beast::buffers_range_ref(buffers)) {
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
        total += buffer.size();
      }
      return total;
    }
    void finish(beast::error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};

template <class Parser>
Fed feed_parser(Parser& parser, std::string_view bytes) {
  Fed fed;
  while (!parser.is_done() && fed.consumed < bytes.size()) {
    beast::error_code ec;
    size_t taken = parser.put({bytes.data() + fed.consumed, bytes.size() - fed.consumed}, ec);
    fed.consumed += taken;
    if (ec == bhttp::error::need_more || (!ec && taken == 0)) break;
    if (!ec) continue;
    fed.bad_status = ec == bhttp::error::header_limit ? 431 : ec == bhttp::error::body_limit ? 413 : 400;
    fed.problem = ec.message();
    return fed;
  }
  fed.done = parser.is_done();
  return fed;
}

template <class Fields>
Headers copy_headers(const Fields& fields) {
  Headers headers;
  for (const auto& field : fields) headers.emplace_back(field.name_string(), field.value());
  return headers;
}

bool has_line_break(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) != text.npos;
}

bool is(std::string_view name, std::string_view other) {
  return name.size() == other.size() && strncasecmp(name.data(), other.data(), name.size()) == 0;
}

std::string http_date() {
  char text[64];
  std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return std::string(text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc));
}

}  // namespace

struct RequestReader::Parser : bhttp::request_parser<GrowingBody> {};

RequestReader::RequestReader(size_t max_header_bytes, size_t max_body_bytes)
    : parser_(std::make_unique<Parser>()) {
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(max_header_bytes));
  parser_->body_limit(max_body_bytes);
}
RequestReader::~RequestReader() = default;

Fed RequestReader::feed(std::string_view bytes) { return feed_parser(*parser_, bytes); }

bool RequestReader::wants_continue() const {
  return parser_->is_header_done() && !parser_->is_done() &&
         beast::iequals(parser_->get()[bhttp::field::expect], "100-continue");
}

bool RequestReader::keep_alive() const { return parser_->keep_alive(); }
bool RequestReader::http_1_0() const { return parser_->get().version() < 11; }

Request RequestReader::take() {
  Request request;
  auto& message = parser_->get();
  request.method = message.method_string();
  request.path = message.target();
  request.headers = copy_headers(message);
  request.body = std::move(message.body());
  return request;
}

struct ResponseReader::Parser : bhttp::response_parser<GrowingBody> {};

ResponseReader::ResponseReader(bool no_body) : no_body_(no_body) { restart(); }
ResponseReader::~ResponseReader() = default;

void ResponseReader::restart() {
  parser_ = std::make_unique<Parser>();
  parser_->eager(true);
  parser_->header_limit(kMaxResponseHeaderBytes);
  parser_->body_limit(boost::none);
  if (no_body_) parser_->skip(true);
}

Fed ResponseReader::feed(std::string_view bytes) {
  size_t skipped = 0;
  while (true) {
    Fed fed = feed_parser(*parser_, bytes.substr(skipped));
    fed.consumed += skipped;
    bool interim = fed.done && status() >= 100 && status() < 200 && status() != 101;
    if (!interim) return fed;
    skipped = fed.consumed;
    restart();
  }
}

Status ResponseReader::feed_end() {
  if (parser_->is_done()) return {};
  beast::error_code ec = bhttp::error::partial_message;
  if (parser_->got_some()) parser_->put_eof(ec);
  if (ec) return fail(Code::kUnavailable, "the connection was closed in the middle of the answer");
  return {};
}

bool ResponseReader::has_head() const {
  return parser_->is_header_done() && !(status() >= 100 && status() < 200 && status() != 101);
}
int ResponseReader::status() const { return static_cast<int>(parser_->get().result_int()); }
Headers ResponseReader::headers() const { return copy_headers(parser_->get()); }
std::string ResponseReader::take_body() { return std::exchange(parser_->get().body(), {}); }

std::string render_head(int status, const Headers& headers, const HeadOptions& options) {
  auto reason = std::string_view(bhttp::obsolete_reason(static_cast<bhttp::status>(status)));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", status, reason, http_date());
  for (const auto& [name, value] : headers) {
    bool ours = is(name, "Content-Length") || is(name, "Transfer-Encoding") || is(name, "Connection") ||
                is(name, "Date");
    if (ours || has_line_break(name) || has_line_break(value)) continue;
    head += fmt::format("{}: {}\r\n", name, value);
  }
  if (options.content_length) head += fmt::format("Content-Length: {}\r\n", *options.content_length);
  if (options.chunked) head += "Transfer-Encoding: chunked\r\n";
  head += options.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return head;
}

std::string render_upgrade(const Headers& headers) {
  std::string head = render_head(101, headers, {.keep_alive = false});
  const std::string_view close = "Connection: close\r\n";
  return head.replace(head.find(close), close.size(), "Connection: Upgrade\r\n");
}

Result<std::string> render_request(std::string_view method, std::string_view target, std::string_view host,
                                   const Headers& headers, size_t body_bytes) {
  if (method.empty() || has_line_break(method) || method.find(' ') != method.npos) {
    return fail(Code::kInvalidArgument, fmt::format("HTTP method '{}' is not one word", method));
  }
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", method, target, host);
  for (const auto& [name, value] : headers) {
    if (has_line_break(name) || has_line_break(value)) {
      return fail(Code::kInvalidArgument, fmt::format("header '{}' holds a line break", name));
    }
    if (is(name, "Host") || is(name, "Connection") || is(name, "Content-Length") ||
        is(name, "Transfer-Encoding"))
      continue;
    head += fmt::format("{}: {}\r\n", name, value);
  }
  if (body_bytes > 0 || (method != "GET" && method != "HEAD"))
    head += fmt::format("Content-Length: {}\r\n", body_bytes);
  return head + "\r\n";
}

}  // namespace th::http
