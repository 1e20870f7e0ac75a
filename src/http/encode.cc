#include "http/encode.h"

#include <zlib.h>

#include <algorithm>

#include "base/text.h"

namespace th::http {
namespace {

constexpr size_t kMinBytes = 1024;
constexpr int kGzip = 15 + 16;  // deflateInit2: the largest window, with gzip's header

bool is_text(const Response& response) {
  const std::string type = response.header("Content-Type").value_or("");
  return type.starts_with("text/") || type.starts_with("application/json") ||
         type.starts_with("application/javascript") || type.starts_with("image/svg");
}

/// Empty when zlib fails.
std::string gzip(const std::string& text) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY) != Z_OK) return {};
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool whole = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(whole ? stream.total_out : 0);
  deflateEnd(&stream);
  return out;
}

/// Weak comparison (RFC 9110, 8.8.3.2): "W/" makes no difference.
bool has_tag(std::string_view list, std::string_view tag) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    std::string_view item = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (item.starts_with("W/")) item.remove_prefix(2);
    if (item == tag || item == "*") return true;
  }
  return false;
}

/// "gzip" or "gzip;q=0.5", and not "gzip;q=0".
bool takes_gzip(std::string_view list) {
  for (const std::string& item : split(list, ',')) {
    const size_t begin = item.find_first_not_of(' ');
    if (begin == std::string::npos || !item.substr(begin).starts_with("gzip")) continue;
    const size_t q = item.find("q=");
    return q == std::string::npos || item.find_first_of("123456789", q) != std::string::npos;
  }
  return false;
}

}  // namespace

Accepts accepts_of(const Request& request) {
  Accepts out;
  out.gzip = takes_gzip(request.header("Accept-Encoding").value_or(""));
  out.revalidates = request.method == "GET" || request.method == "HEAD";
  if (out.revalidates) out.if_none_match = request.header("If-None-Match").value_or("");
  return out;
}

Response encode(Response response, const Accepts& accepts) {
  const bool plain = response.status == 200 && response.body.size() >= kMinBytes &&
                     !response.header("Content-Encoding") && is_text(response);
  if (!plain) return response;
  if (accepts.revalidates && !response.header("ETag")) {
    const std::string tag = '"' + sha256_hex(response.body).substr(0, 32) + '"';
    response.headers.emplace_back("ETag", "W/" + tag);
    if (!response.header("Cache-Control")) response.headers.emplace_back("Cache-Control", "no-cache");
    if (has_tag(accepts.if_none_match, tag)) {
      response.status = 304;
      response.body.clear();
      return response;
    }
  }
  if (!accepts.gzip) return response;
  std::string packed = gzip(response.body);
  if (packed.empty() || packed.size() >= response.body.size()) return response;
  response.body = std::move(packed);
  response.headers.emplace_back("Content-Encoding", "gzip");
  response.headers.emplace_back("Vary", "Accept-Encoding");
  return response;
}

}  // namespace th::http
