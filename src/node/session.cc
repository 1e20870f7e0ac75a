#include "node/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/log.h"
#include "base/process.h"
#include "base/units.h"
#include "http/tunnel.h"
#include "http/websocket.h"

namespace th::node {
namespace {

using http::Opcode;
using http::socket_frame;

constexpr size_t kPieceBytes = size_t{32} << 10;
constexpr size_t kMaxHeldBytes = size_t{256} << 10;  // in each direction; then the other side waits
constexpr int64_t kPingEveryNs = 15 * kSecond;
constexpr int64_t kSilentNs = 60 * kSecond;      // of a peer that takes all that it is sent
constexpr int64_t kStuckNs = 60 * kMinute;       // of one that does not
constexpr int64_t kOutputAfterExitNs = kSecond;  // for what the process left behind in its pipes
constexpr int64_t kFarewellNs = 5 * kSecond;
constexpr int64_t kGraceNs = 2 * kSecond;  // between SIGHUP and SIGKILL when the peer is gone

int64_t now() { return Env::real().monotonic_ns(); }

std::string message(Channel channel, std::string_view data) {
  return socket_frame(Opcode::kBinary, std::string(1, static_cast<char>(channel)) + std::string(data));
}

/// The process's ends of its streams, and ours.
struct Streams {
  UniqueFd child_in, child_out, child_err;
  UniqueFd in, out, err;  // err: none with a terminal
};

Result<Streams> make_pipes() {
  Streams s;
  std::array<int, 2> in{}, out{}, err{};
  if (pipe2(in.data(), O_CLOEXEC) != 0) return fail(errno_error("making a pipe", errno));
  s.child_in = UniqueFd(in[0]), s.in = UniqueFd(in[1]);
  if (pipe2(out.data(), O_CLOEXEC) != 0) return fail(errno_error("making a pipe", errno));
  s.out = UniqueFd(out[0]), s.child_out = UniqueFd(out[1]);
  if (pipe2(err.data(), O_CLOEXEC) != 0) return fail(errno_error("making a pipe", errno));
  s.err = UniqueFd(err[0]), s.child_err = UniqueFd(err[1]);
  return s;
}

void resize(int terminal, int rows, int columns) {
  winsize size{};
  size.ws_row = static_cast<unsigned short>(rows), size.ws_col = static_cast<unsigned short>(columns);
  ioctl(terminal, TIOCSWINSZ, &size);
}

Result<Streams> make_terminal(const SessionSpec& spec, const std::optional<User>& user) {
  Streams s;
  s.in = UniqueFd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::array<char, 128> name{};
  if (!s.in || grantpt(s.in.get()) != 0 || unlockpt(s.in.get()) != 0 ||
      ptsname_r(s.in.get(), name.data(), name.size()) != 0)
    return fail(errno_error("making a terminal", errno));
  s.child_in = UniqueFd(open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!s.child_in) return fail(errno_error("opening a terminal", errno));
  if (user && fchown(s.child_in.get(), user->uid, static_cast<gid_t>(-1)) != 0)
    return fail(errno_error("giving the terminal to the job's user", errno));
  resize(s.in.get(), spec.rows, spec.columns);
  s.child_out = UniqueFd(dup(s.child_in.get()));
  s.out = UniqueFd(fcntl(s.in.get(), F_DUPFD_CLOEXEC, 4));
  return s;
}

std::vector<std::string> shell() { return {access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh"}; }

}  // namespace

/// What both threads see.
struct Session::Shared {
  std::mutex mutex;
  pid_t running = 0;          // by mutex; 0: nothing to be signalled
  std::optional<int> status;  // by mutex; of waitpid
  std::string why;            // by mutex: it was ended for this
  std::atomic<bool> done = false;
  UniqueFd wake{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  Streams streams;
  std::optional<Error> problem;  // it could not be started

  void signal(int number) {
    std::scoped_lock lock(mutex);
    if (running) kill(-running, number);
  }
  std::optional<int> exited() {
    std::scoped_lock lock(mutex);
    return status;
  }
  /// The last message: how the process ended.
  Json farewell() {
    if (problem) return {{"error", {{"code", code_name(problem->code)}, {"message", problem->message}}}};
    std::scoped_lock lock(mutex);
    Json out =
        WIFEXITED(*status) ? Json{{"exit_code", WEXITSTATUS(*status)}} : Json{{"signal", WTERMSIG(*status)}};
    if (!why.empty()) out["reason"] = why;
    return out;
  }
};

namespace {

/// Carries bytes between the tunnel and the process until both are through.
class Carrier {
 public:
  Carrier(http::ClientTunnel tunnel, bool terminal) : tunnel_(std::move(tunnel)), terminal_(terminal) {
    fcntl(tunnel_.fd.get(), F_SETFL, fcntl(tunnel_.fd.get(), F_GETFL) | O_NONBLOCK);
  }

  void send(std::string_view frame) { to_peer_ += frame; }
  /// `exited`, `farewell` and `hang_up` are asked and told from this thread.
  struct Process {
    Streams& streams;
    int wake_fd;
    std::function<bool()> exited;
    std::function<std::string()> farewell;
    std::function<void(int signal)> signal;
  };
  void run(const Process& process, const std::stop_token& stop);

 private:
  bool step(const Process& process);
  void wait(const Process& process);
  bool read_peer(const Process& process);
  void take(const http::SocketMessage& message, const Process& process);
  void control(std::string_view text, const Process& process);
  void read_output(UniqueFd& fd, Channel channel);
  void write_input(const Process& process);
  bool write_peer();
  void hang_up(const Process& process);

  http::ClientTunnel tunnel_;
  const bool terminal_;
  http::SocketReader reader_{true};
  std::string to_peer_, to_process_;
  bool input_ends_ = false;  // after to_process_
  bool peer_gone_ = false, said_farewell_ = false;
  int64_t heard_ns_ = now(), pinged_ns_ = now(), progress_ns_ = now();
  int64_t exited_ns_ = 0, farewell_ns_ = 0, hung_up_ns_ = 0;
};

void Carrier::run(const Process& process, const std::stop_token& stop) {
  for (UniqueFd* fd : {&process.streams.in, &process.streams.out, &process.streams.err})
    if (*fd) fcntl(fd->get(), F_SETFL, fcntl(fd->get(), F_GETFL) | O_NONBLOCK);
  if (!tunnel_.early.empty()) {
    if (auto first = reader_.feed(tunnel_.early)) {
      for (const auto& message : *first) take(message, process);
    }
  }
  while (!stop.stop_requested() && step(process)) wait(process);
}

/// Returns: there is more to do.
bool Carrier::step(const Process& process) {
  const int64_t time = now();
  write_input(process);
  read_output(process.streams.out, Channel::kStdout);
  read_output(process.streams.err, Channel::kStderr);
  if (process.exited() && exited_ns_ == 0) exited_ns_ = time;
  const bool no_output = !process.streams.out && !process.streams.err;
  const bool drained = to_peer_.size() < kMaxHeldBytes;  // as far as it goes at the moment
  if (exited_ns_ && !said_farewell_ && (no_output || (drained && time - exited_ns_ > kOutputAfterExitNs))) {
    said_farewell_ = true, farewell_ns_ = time;
    to_peer_ += message(Channel::kControl, process.farewell());
    to_peer_ += socket_frame(Opcode::kClose, std::string("\x03\xe8", 2));  // RFC 6455, 7.4.1: 1000
  }
  if (!peer_gone_) {
    if (time - pinged_ns_ > kPingEveryNs && to_peer_.empty()) {
      pinged_ns_ = time;
      to_peer_ += socket_frame(Opcode::kPing, "");
    }
    const bool silent = to_peer_.empty() && time - std::max(heard_ns_, progress_ns_) > kSilentNs;
    const bool stuck = !to_peer_.empty() && time - std::max(heard_ns_, progress_ns_) > kStuckNs;
    if (silent || stuck || !read_peer(process) || !write_peer()) hang_up(process);
  }
  if (hung_up_ns_ && !exited_ns_ && time - hung_up_ns_ > kGraceNs) process.signal(SIGKILL);
  if (said_farewell_ && time - farewell_ns_ > kFarewellNs && to_peer_.empty()) return false;
  return !(said_farewell_ && peer_gone_);
}

void Carrier::hang_up(const Process& process) {
  peer_gone_ = true;
  to_peer_.clear();
  if (exited_ns_) return;
  hung_up_ns_ = now();
  process.signal(SIGHUP);
}

void Carrier::wait(const Process& process) {
  const bool room = to_peer_.size() < kMaxHeldBytes;
  const auto events = [](bool in, bool out) {
    return static_cast<short>((in ? POLLIN : 0) | (out ? POLLOUT : 0));
  };
  const auto when = [](bool wanted, const UniqueFd& fd) { return wanted && fd ? fd.get() : -1; };
  const short peer = events(to_process_.size() < kMaxHeldBytes, !to_peer_.empty());
  pollfd items[] = {{peer_gone_ || peer == 0 ? -1 : tunnel_.fd.get(), peer, 0},
                    {when(!to_process_.empty(), process.streams.in), POLLOUT, 0},
                    {when(room, process.streams.out), POLLIN, 0},
                    {when(room, process.streams.err), POLLIN, 0},
                    {process.wake_fd, POLLIN, 0}};
  poll(items, 5, 500);
  eventfd_t count = 0;
  if (items[4].revents != 0) eventfd_read(process.wake_fd, &count);
}

/// Returns: the peer is there.
bool Carrier::read_peer(const Process& process) {
  std::array<char, kPieceBytes> piece;
  if (to_process_.size() >= kMaxHeldBytes) return true;
  const ssize_t n = recv(tunnel_.fd.get(), piece.data(), piece.size(), MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  heard_ns_ = now();
  const auto messages = reader_.feed({piece.data(), static_cast<size_t>(n)});
  if (!messages) return false;
  for (const http::SocketMessage& message : *messages) {
    if (message.opcode == Opcode::kClose) return false;
    take(message, process);
  }
  return true;
}

void Carrier::take(const http::SocketMessage& message, const Process& process) {
  if (message.opcode == Opcode::kPing) to_peer_ += socket_frame(Opcode::kPong, message.data);
  const bool data = message.opcode == Opcode::kBinary || message.opcode == Opcode::kText;
  if (!data || message.data.empty()) return;
  const std::string_view rest = std::string_view(message.data).substr(1);
  if (message.data[0] == static_cast<char>(Channel::kControl)) return control(rest, process);
  if (message.data[0] == static_cast<char>(Channel::kStdin) && !input_ends_) to_process_ += rest;
}

void Carrier::control(std::string_view text, const Process& process) {
  const auto json = parse_json(text, "control message");
  if (!json || !json->is_object()) return;
  if (get_bool(*json, "stdin_closed", false).value_or(false) && !input_ends_) {
    input_ends_ = true;
    if (terminal_) to_process_ += '\x04';
  }
  if (const auto size = json->find("resize"); terminal_ && size != json->end() && process.streams.in) {
    const int64_t rows = get_int(*size, "rows", 0).value_or(0),
                  columns = get_int(*size, "columns", 0).value_or(0);
    if (rows > 0 && rows <= kMaxTerminalSide && columns > 0 && columns <= kMaxTerminalSide)
      resize(process.streams.in.get(), static_cast<int>(rows), static_cast<int>(columns));
  }
}

void Carrier::read_output(UniqueFd& fd, Channel channel) {
  std::array<char, kPieceBytes> piece;
  while (fd && to_peer_.size() < kMaxHeldBytes) {
    const ssize_t n = read(fd.get(), piece.data(), piece.size());
    if (n > 0) {
      if (!peer_gone_) to_peer_ += message(channel, {piece.data(), static_cast<size_t>(n)});
    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    } else {
      fd = UniqueFd();  // its end; of a terminal EIO once nobody has it open
    }
  }
}

void Carrier::write_input(const Process& process) {
  UniqueFd& in = process.streams.in;
  while (in && !to_process_.empty()) {
    const ssize_t n = write(in.get(), to_process_.data(), to_process_.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) {
      to_process_.clear();  // it reads no more
      input_ends_ = true;
      if (!terminal_) in = UniqueFd();
      return;
    }
    to_process_.erase(0, static_cast<size_t>(n));
  }
  if (input_ends_ && !terminal_) in = UniqueFd();
}

/// Returns: the peer is there.
bool Carrier::write_peer() {
  while (!to_peer_.empty()) {
    const ssize_t n = ::send(tunnel_.fd.get(), to_peer_.data(), to_peer_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    progress_ns_ = now();
    to_peer_.erase(0, static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

Session::Session(SessionSpec spec, const Rank* rank, http::Call dial, const std::string& vm_dir)
    : spec_(std::move(spec)), marker_(vm_dir + "/" + spec_.session), shared_(std::make_shared<Shared>()) {
  Status started = rank && rank->running() ? start(*rank)
                                           : fail(Code::kFailedPrecondition,
                                                  "rank " + spec_.task.text() + " does not run any more");
  if (!started) shared_->problem = started.error();
  log_info("{} beside {}: {}", spec_.session, spec_.task.text(),
           started ? fmt::format("process {}", pid_) : started.error().message);
  carrier_ = std::jthread([shared = shared_, dial = std::move(dial), terminal = spec_.terminal,
                           name = spec_.session](const std::stop_token& stop) {
    auto tunnel = http::open_tunnel(dial);
    if (tunnel) {
      Carrier carrier(*std::move(tunnel), terminal);
      carrier.run(
          {shared->streams, shared->wake.get(), [&] { return shared->problem || shared->exited(); },
           [&] { return dump_json(shared->farewell()); }, [&](int number) { shared->signal(number); }},
          stop);
    } else {
      log_warn("{}: {}", name, tunnel.error().message);
    }
    shared->signal(SIGKILL);
    shared->done = true;
  });
}

Status Session::start(const Rank& rank) {
  TH_TRY(Streams streams, spec_.terminal ? make_terminal(spec_, rank.user()) : make_pipes());
  SpawnSpec process;
  process.argv = spec_.argv.empty() ? shell() : spec_.argv;
  process.terminal = spec_.terminal;
  process.in_fd = streams.child_in.get(), process.log_fd = streams.child_out.get();
  if (streams.child_err) process.err_fd = streams.child_err.get();
  std::map<std::string, std::string> env = {{"TH_SESSION", marker_}};
  if (spec_.terminal) env["TERM"] = "xterm-256color";
  TH_TRY(pid_, rank.spawn_beside(process, env));
  shared_->running = pid_;
  for (UniqueFd* fd : {&streams.child_in, &streams.child_out, &streams.child_err}) *fd = UniqueFd();
  shared_->streams = std::move(streams);
  return {};
}

void Session::reap() {
  std::scoped_lock lock(shared_->mutex);
  kill(-pid_, SIGKILL);
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_) return;
  shared_->running = 0;
  shared_->status = status;
  eventfd_write(shared_->wake.get(), 1);
}

void Session::end(const std::string& why) {
  {
    std::scoped_lock lock(shared_->mutex);
    if (shared_->running == 0 || !shared_->why.empty()) return;
    shared_->why = why;
  }
  shared_->signal(SIGKILL);
}

bool Session::done() const { return shared_->done && (pid_ == 0 || shared_->exited()); }

Session::~Session() {
  carrier_.request_stop();
  eventfd_write(shared_->wake.get(), 1);
  carrier_ = std::jthread();
  kill_leftovers(0, "TH_SESSION=" + marker_);
}

}  // namespace th::node
