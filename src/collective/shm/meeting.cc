#include "collective/shm/meeting.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace th::collective {
namespace {

constexpr int kBacklog = 1024;

struct Address {
  explicit Address(const std::string& name) {
    value.sun_family = AF_UNIX;
    const size_t length = std::min(name.size(), sizeof(value.sun_path) - 1);
    std::copy_n(name.begin(), length, value.sun_path + 1);  // a leading 0: the abstract namespace
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
  sockaddr_un value{};
  socklen_t size;
};

/// Anyone on the host can reach an abstract socket.
bool is_our_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/// A message of one byte with room for one descriptor.
struct Message {
  Message() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
  }
  char byte = 0;
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
};

void send_fd(int socket, int fd) {
  Message message;
  cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(control), &fd, sizeof(fd));
  sendmsg(socket, &message.header, MSG_NOSIGNAL);  // who went away meanwhile asks again, or is missed by name
}

UniqueFd receive_fd(int socket) {
  Message message;
  if (recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC) != 1) return {};
  const cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) return {};
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(control), sizeof(fd));
  return UniqueFd(fd);
}

}  // namespace

Result<UniqueFd> open_meeting(const std::string& name) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(errno_error("unix socket", errno));
  const Address address(name);
  if (bind(fd.get(), address.get(), address.size) != 0) {
    if (errno == EADDRINUSE) return fail(Code::kAlreadyExists, "another gang meets as '" + name + "'");
    return fail(errno_error("unix socket " + name, errno));
  }
  if (listen(fd.get(), kBacklog) != 0) return fail(errno_error("unix socket " + name, errno));
  return fd;
}

void hand_out(const UniqueFd& meeting, int fd, int timeout_ms) {
  pollfd wanted{.fd = meeting.get(), .events = POLLIN, .revents = 0};
  if (poll(&wanted, 1, timeout_ms) <= 0) return;
  for (;;) {
    UniqueFd peer(accept4(meeting.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer) return;
    if (is_our_user(peer.get())) send_fd(peer.get(), fd);
  }
}

Result<UniqueFd> fetch(const std::string& name) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail(errno_error("unix socket", errno));
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));  // of connect, too
  const Address address(name);
  if (connect(fd.get(), address.get(), address.size) != 0) return UniqueFd();
  if (!is_our_user(fd.get())) {
    return fail(Code::kPermissionDenied, "a process of another user meets as '" + name + "'");
  }
  return receive_fd(fd.get());
}

}  // namespace th::collective
