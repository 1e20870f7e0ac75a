#pragma once
// URLs and request targets: checked splitting and percent-coding.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::http {

/// "%41" → "A"; '+' stays. Errors: kInvalidArgument for a broken escape and for NUL.
Result<std::string> percent_decode(std::string_view text);
/// Everything but letters, digits and "-._~" becomes %XX: safe as one path segment or one query value.
std::string percent_encode(std::string_view text);

struct Target {
  std::string path;  // decoded, begins with '/'
  std::map<std::string, std::string>
      query;  // decoded ('+' is a space); of a name given twice the first counts
};
/// A request line's target: "/a%20b?x=1", or "http://host/a" as a proxy sends it. Errors: kInvalidArgument.
Result<Target> parse_target(std::string_view target);

struct Url {
  bool tls = false;
  std::string host;  // without brackets
  uint16_t port = 80;
  std::string target = "/";  // as it goes on the wire: path and query, no fragment
  std::string host_header;   // "host" or "host:port", with brackets where needed
};
/// "http://host[:port]/path?query", also https and [::1]. No user:password. Errors: kInvalidArgument.
Result<Url> parse_url(std::string_view url);

}  // namespace th::http
