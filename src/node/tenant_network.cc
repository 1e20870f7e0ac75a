#include "node/tenant_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <thread>

#include "base/log.h"
#include "base/text.h"
#include "http/url.h"

namespace th::node {
namespace {

constexpr const char* kFolder = "/run/thunderhead/net";
constexpr int kMaxConnections = 64;  // of one relay; more are refused

bool is_namespace(int fd) {
  struct statfs info {};
  return fstatfs(fd, &info) == 0 && info.f_type == NSFS_MAGIC;
}

/// A namespace is a thread's own: what happens in another one happens on a thread of its own. Returns errno
/// or 0.
template <class Action>
int on_a_thread(Action action) {
  int error = 0;
  std::thread([&] { error = action(); }).join();
  return error;
}

int bring_up_loopback() {
  const UniqueFd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::string("lo").copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return any && ioctl(any.get(), SIOCSIFFLAGS, &request) == 0 ? 0 : errno;
}

/// The new namespace lives as long as the file is mounted.
Status make_namespace(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return fail(errno_error("making " + path, errno));
  const int error = on_a_thread([&] {
    if (unshare(CLONE_NEWNET) != 0) return errno;
    if (const int problem = bring_up_loopback(); problem != 0) return problem;
    return mount("/proc/thread-self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) == 0 ? 0 : errno;
  });
  if (error == 0) return {};
  unlink(path.c_str());
  return fail(errno_error("making the network namespace " + path, error));
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET, out.sin_port = htons(port), out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return out;
}

/// Nodes of one machine listen beside each other, so that one may end.
Result<UniqueFd> listen_in(int space, uint16_t port) {
  UniqueFd out;
  const int error = on_a_thread([&] {
    if (setns(space, CLONE_NEWNET) != 0) return errno;
    out = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    const sockaddr_in at = loopback(port);
    const bool listens = out && setsockopt(out.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
                         bind(out.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0 &&
                         listen(out.get(), kMaxConnections) == 0;
    return listens ? 0 : errno;
  });
  if (error != 0) return fail(errno_error("listening in a tenant's network", error));
  return out;
}

/// Moves what is there; false: nothing comes from there any more.
bool pass_on(int from, int to) {
  std::array<char, 16384> bytes;
  const ssize_t n = recv(from, bytes.data(), bytes.size(), 0);
  if (n < 0) return errno == EINTR;
  for (ssize_t done = 0; done < n;) {
    const ssize_t sent = send(to, bytes.data() + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return false;
    if (sent > 0) done += sent;
  }
  if (n == 0) shutdown(to, SHUT_WR);
  return n > 0;
}

void pump(int a, int b, int stop) {
  bool from_a = true, from_b = true;
  while (from_a || from_b) {
    pollfd fds[] = {{from_a ? a : -1, POLLIN, 0}, {from_b ? b : -1, POLLIN, 0}, {stop, POLLIN, 0}};
    if (poll(fds, 3, -1) < 0 && errno != EINTR) return;
    if (fds[2].revents != 0) return;
    if (fds[0].revents != 0) from_a = pass_on(a, b);
    if (fds[1].revents != 0) from_b = pass_on(b, a);
  }
}

}  // namespace

/// Takes connections in a tenant's network and makes them in the machine's.
class TenantNetworks::Relay {
 public:
  Relay(UniqueFd listener, uint16_t port)
      : listener_(std::move(listener)),
        port_(port),
        stop_(eventfd(0, EFD_CLOEXEC)),
        thread_([this] { run(); }) {}
  ~Relay() {
    const uint64_t one = 1;
    static_cast<void>(!write(stop_.get(), &one, sizeof one));
    thread_.join();
  }

 private:
  struct Connection {
    std::atomic<bool> done = false;
    std::jthread thread;
  };

  void run() {
    std::list<Connection> open;
    while (true) {
      pollfd fds[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[1].revents != 0) return;  // the threads of `open` see it too and are joined
      if (fds[0].revents == 0) continue;
      UniqueFd inside(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::erase_if(open, [](const Connection& c) { return c.done.load(); });
      if (!inside || open.size() >= kMaxConnections) continue;
      Connection& connection = open.emplace_back();
      connection.thread = std::jthread([this, &connection, in = inside.release()] {
        serve(UniqueFd(in));
        connection.done = true;
      });
    }
  }

  void serve(const UniqueFd& inside) const {
    const UniqueFd outside(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = loopback(port_);
    if (outside && connect(outside.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0)
      pump(inside.get(), outside.get(), stop_.get());
  }

  UniqueFd listener_;
  uint16_t port_;
  UniqueFd stop_;
  std::thread thread_;
};

TenantNetworks::TenantNetworks(const std::filesystem::path& jobs_dir, std::string controller)
    : folder_(kFolder),
      prefix_(sha256_hex(jobs_dir.string()).substr(0, 12)),
      controller_(std::move(controller)) {}

TenantNetworks::~TenantNetworks() {
  const UniqueFd turn = wait_for_turn();
  for (auto& [tenant, network] : networks_) {
    network.relay.reset();
    if (!turn || flock(network.lock.get(), LOCK_EX | LOCK_NB) != 0) continue;  // another node uses it
    const std::string path = folder_ / (prefix_ + "-" + tenant);
    if (umount2(path.c_str(), MNT_DETACH) != 0) log_warn("{}: {}", path, strerror(errno));
    unlink(path.c_str());
    unlink((path + ".lock").c_str());
  }
}

/// Namespaces are made and ended by one node at a time.
UniqueFd TenantNetworks::wait_for_turn() const {
  std::error_code problem;
  std::filesystem::create_directories(folder_, problem);
  UniqueFd turn(::open((folder_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  return turn && flock(turn.get(), LOCK_EX) == 0 ? std::move(turn) : UniqueFd();
}

/// The lock of the namespace is kept, shared, for as long as it is used.
Result<TenantNetworks::Network> TenantNetworks::open(const std::string& tenant) const {
  const UniqueFd turn = wait_for_turn();
  const std::string path = folder_ / (prefix_ + "-" + tenant), lock_path = path + ".lock";
  Network out;
  out.lock = UniqueFd(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!turn || !out.lock || flock(out.lock.get(), LOCK_SH) != 0)
    return fail(errno_error("locking " + lock_path, errno));
  out.space = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!out.space || !is_namespace(out.space.get())) {
    TH_RETURN_IF_ERROR(make_namespace(path));
    out.space = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  if (!out.space) return fail(errno_error("opening " + path, errno));
  return out;
}

Result<int> TenantNetworks::enter(const std::string& tenant) {
  if (const auto known = networks_.find(tenant); known != networks_.end()) return known->second.space.get();
  TH_TRY(Network network, open(tenant));
  const auto url = http::parse_url(controller_);
  if (url && url->host == "127.0.0.1") {
    TH_TRY(UniqueFd listener, listen_in(network.space.get(), url->port));
    network.relay = std::make_unique<Relay>(std::move(listener), url->port);
  }
  log_info("tenant {} has a network of its own", tenant);
  return (networks_[tenant] = std::move(network)).space.get();
}

}  // namespace th::node
