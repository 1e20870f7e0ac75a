#pragma once
// A whole answer on its way out: not sent again to who has it, and compressed for who can read that. Runs on
// the server's threads, so that handlers need not wait for it. Thread: pure.

#include <string>

#include "http/message.h"

namespace th::http {

/// What a client said that it takes.
struct Accepts {
  bool gzip = false;
  bool revalidates = false;   // GET and HEAD: an ETag is of use
  std::string if_none_match;  // ETags that it has
};
Accepts accepts_of(const Request& request);

/// A 200 with text of at least a KiB gets an ETag (its SHA-256) and `Cache-Control: no-cache`; who has it
/// already gets 304 without it (RFC 9110, 13.1.2). Text is gzipped for who takes it. Answers with an ETag or
/// an encoding of their own keep it. Cost: O(bytes); 2 MB of JSON about 15 ms.
Response encode(Response response, const Accepts& accepts);

}  // namespace th::http
