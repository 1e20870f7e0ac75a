#include "collective/gloo/sockets.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <cerrno>
#include <memory>

namespace th::collective {
namespace {

constexpr int kBacklog = 1024;
constexpr int kConnectMs = 1000;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0) {
    return fail(Code::kInvalidArgument,
                fmt::format("MASTER_ADDR {}: {}; want an address that all ranks can reach", host,
                            gai_strerror(error)));
  }
  return Addresses(found);
}

}  // namespace

Result<UniqueFd> listen_on(const std::string& host, int port) {
  TH_TRY(Addresses addresses, resolve(host, port));
  UniqueFd fd(socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(errno_error("socket", errno));
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_storage any{};  // all zero: every address; the name may stand for 127.0.1.1 on its own host
  any.ss_family = static_cast<sa_family_t>(addresses->ai_family);
  reinterpret_cast<sockaddr_in*>(&any)->sin_port = htons(static_cast<uint16_t>(port));  // as in sockaddr_in6
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&any), addresses->ai_addrlen) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE)
      return fail(Code::kAlreadyExists,
                  fmt::format("MASTER_PORT {} is in use on this node; take another", port));
    return fail(errno_error(fmt::format("MASTER_PORT {}", port), errno));
  }
  return fd;
}

Result<UniqueFd> connect_to(const std::string& host, int port) {
  TH_TRY(Addresses addresses, resolve(host, port));
  for (addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    UniqueFd fd(socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) continue;
    if (connect(fd.get(), a->ai_addr, a->ai_addrlen) != 0) {
      pollfd wanted{.fd = fd.get(), .events = POLLOUT, .revents = 0};
      int error = 0;
      socklen_t size = sizeof(error);
      if (errno != EINPROGRESS || poll(&wanted, 1, kConnectMs) != 1 ||
          getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
        continue;
    }
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
  }
  return UniqueFd();
}

std::string address_of(int socket, End end) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const int got =
      end == End::kOurs ? getsockname(socket, generic, &size) : getpeername(socket, generic, &size);
  char text[NI_MAXHOST] = "";
  if (got != 0 || getnameinfo(generic, size, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) return "";
  return text;
}

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

bool resolves_to_loopback(const std::string& host) {
  auto addresses = resolve(host, 0);
  if (!addresses) return false;
  for (addrinfo* a = addresses->get(); a != nullptr; a = a->ai_next) {
    char text[NI_MAXHOST] = "";
    getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
    if (!is_loopback(text)) return false;
  }
  return true;
}

}  // namespace th::collective
