#include "http/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace th::http {
namespace {

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

uint16_t port_of(const Address& address) {
  return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

Error listen_error(const std::string& where, int errno_value) {
  if (errno_value == EADDRINUSE) {
    return {Code::kAlreadyExists,
            where + " is taken: another program listens there; stop it or choose another port"};
  }
  if (errno_value == EACCES) {
    return {Code::kPermissionDenied, where + " may not be used by this user; choose a port over 1023"};
  }
  Error error = errno_error("listen on " + where, errno_value);
  if (errno_value == EADDRNOTAVAIL) error.code = Code::kInvalidArgument;
  return error;
}

}  // namespace

Result<Listening> listen_on(const std::string& text, uint16_t port) {
  Address address{};
  Listening listening;
  socklen_t size = sizeof address.v4;
  if (::inet_pton(AF_INET, text.c_str(), &address.v4.sin_addr) == 1) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
  } else if (::inet_pton(AF_INET6, text.c_str(), &address.v6.sin6_addr) == 1) {
    listening.v6 = true;
    size = sizeof address.v6;
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons(port);
  } else {
    return fail(Code::kInvalidArgument,
                fmt::format("listen address '{}': want an IP address such as 127.0.0.1", text));
  }
  listening.fd = UniqueFd(::socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int fd = listening.fd.get();
  int on = 1;
  // Else a port would stay taken for a minute after its server ended.
  bool good = fd >= 0 && ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              ::bind(fd, &address.any, size) == 0 && ::listen(fd, SOMAXCONN) == 0 &&
              ::getsockname(fd, &address.any, &size) == 0;
  if (!good) return fail(listen_error(fmt::format("{}:{}", text, port), errno));
  listening.port = port_of(address);
  return listening;
}

std::string prepare_accepted(int fd) {
  int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  Address peer{};
  socklen_t size = sizeof peer;
  char text[INET6_ADDRSTRLEN] = "";
  if (::getpeername(fd, &peer.any, &size) != 0) return "";
  bool v6 = peer.any.sa_family == AF_INET6;
  const void* bytes = v6 ? static_cast<const void*>(&peer.v6.sin6_addr) : &peer.v4.sin_addr;
  ::inet_ntop(peer.any.sa_family, bytes, text, sizeof text);
  return fmt::format("{}:{}", text, port_of(peer));
}

}  // namespace th::http
