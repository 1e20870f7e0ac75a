#include "http/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace th::http {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool unreserved(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

Result<std::string> decode_query(std::string_view text) {
  std::string spaced(text);
  std::replace(spaced.begin(), spaced.end(), '+', ' ');
  return percent_decode(spaced);
}

/// "host:port" without user names. `fallback`: the scheme's port.
Status read_authority(std::string_view authority, uint16_t fallback, Url& url) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument, fmt::format("URL host '{}': {}", authority, problem));
  };
  std::string_view port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    size_t end = authority.find(']');
    if (end == std::string_view::npos) return bad("no closing ]");
    url.host = authority.substr(1, end - 1);
    std::string_view rest = authority.substr(end + 1);
    has_port = rest.starts_with(':');
    if (!has_port && !rest.empty()) return bad("want :port after ]");
    if (has_port) port = rest.substr(1);
  } else {
    size_t colon = authority.find(':');
    url.host = authority.substr(0, colon);
    has_port = colon != std::string_view::npos;
    if (has_port) port = authority.substr(colon + 1);
  }
  if (url.host.empty()) return bad("is empty");
  url.port = fallback;
  if (has_port) {
    unsigned value = 0;
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
    if (error != std::errc() || end != port.data() + port.size() || value == 0 || value > 65535) {
      return bad("want a port from 1 to 65535");
    }
    url.port = static_cast<uint16_t>(value);
  }
  url.host_header = authority;
  return {};
}

}  // namespace

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return fail(Code::kInvalidArgument, fmt::format("byte {}: '%' wants two hex digits after it", i));
      }
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return fail(Code::kInvalidArgument, fmt::format("byte {}: NUL is not allowed", i));
    out.push_back(c);
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (unreserved(c)) {
      out.push_back(c);
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Result<Target> parse_target(std::string_view target) {
  if (target.starts_with("http://") || target.starts_with("https://")) {
    size_t slash = target.find('/', target.find("//") + 2);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  if (!target.starts_with('/')) return fail(Code::kInvalidArgument, "the request target must begin with '/'");
  size_t question = target.find('?');
  Target out;
  auto path = percent_decode(target.substr(0, question));
  if (!path) return fail(Code::kInvalidArgument, "path: " + path.error().message);
  out.path = *std::move(path);
  if (question == std::string_view::npos) return out;

  std::string_view rest = target.substr(question + 1);
  rest = rest.substr(0, rest.find('#'));
  while (!rest.empty()) {
    size_t end = rest.find('&');
    std::string_view pair = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (pair.empty()) continue;
    size_t equals = pair.find('=');
    auto name = decode_query(pair.substr(0, equals));
    auto value =
        decode_query(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1));
    if (!name) return fail(Code::kInvalidArgument, "query: " + name.error().message);
    if (!value) return fail(Code::kInvalidArgument, "query: " + value.error().message);
    out.query.emplace(*std::move(name), *std::move(value));
  }
  return out;
}

Result<Url> parse_url(std::string_view text) {
  Url url;
  std::string_view rest;
  if (text.starts_with("http://")) {
    rest = text.substr(7);
  } else if (text.starts_with("https://")) {
    rest = text.substr(8);
    url.tls = true;
  } else {
    return fail(Code::kInvalidArgument, fmt::format("URL '{}': want http:// or https:// at its start", text));
  }
  for (char c : rest) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) {
      return fail(Code::kInvalidArgument,
                  fmt::format("URL '{}': spaces and control characters must be escaped", text));
    }
  }
  size_t path = rest.find_first_of("/?#");
  std::string_view authority = rest.substr(0, path);
  if (authority.find('@') != std::string_view::npos) {
    return fail(Code::kInvalidArgument, "URL: a user name or password in it is not supported; use a header");
  }
  TH_RETURN_IF_ERROR(read_authority(authority, url.tls ? 443 : 80, url));
  if (path != std::string_view::npos) {
    std::string_view target = rest.substr(path);
    target = target.substr(0, target.find('#'));
    url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  }
  return url;
}

}  // namespace th::http
