// Targets, URLs and percent-coding: what was accepted must hold what the header promises.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "http/url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto target = th::http::parse_target(text)) {
    if (!target->path.starts_with('/') || target->path.find('\0') != std::string::npos) std::abort();
  }
  if (auto url = th::http::parse_url(text)) {
    if (url->host.empty() || url->port == 0 || !url->target.starts_with('/')) std::abort();
    if (url->target.find_first_of("\r\n ") != std::string::npos) std::abort();
  }
  if (text.find('\0') == std::string_view::npos) {
    auto back = th::http::percent_decode(th::http::percent_encode(text));
    if (!back || *back != text) std::abort();
  }
  return 0;
}
