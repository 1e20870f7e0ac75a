#pragma once
// The few calls on sockets that the server makes by itself. Internal.

#include <cstdint>
#include <string>

#include "base/files.h"
#include "base/result.h"

namespace th::http {

struct Listening {
  UniqueFd fd;
  bool v6 = false;
  uint16_t port = 0;
};
/// A TCP socket that listens; programs that are started do not inherit it. Errors: kAlreadyExists (the port
/// is taken; names address and port), kInvalidArgument (address), kPermissionDenied.
Result<Listening> listen_on(const std::string& address, uint16_t port);

/// Small answers at once, and not inherited by programs that are started. Returns "127.0.0.1:41234".
std::string prepare_accepted(int fd);

}  // namespace th::http
