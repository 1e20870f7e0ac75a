// th exec, th attach: a command or a shell beside a rank (docs/exec.md).

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>

#include "base/base64.h"
#include "base/units.h"
#include "context.h"
#include "http/tunnel.h"
#include "http/websocket.h"

namespace th::cli {
namespace {

using http::Opcode;

constexpr char kStdin = 0, kStdout = 1, kStderr = 2, kControl = 3;  // a message's first byte
constexpr char kDetachKey = 0x1d;                                   // Ctrl-]
constexpr size_t kPieceBytes = size_t{32} << 10;
constexpr size_t kMaxHeldBytes = size_t{256} << 10;

volatile sig_atomic_t window_changed = 0;

/// Keys come one by one and as they are, while one lives.
class RawTerminal {
 public:
  RawTerminal() {
    raw_ = tcgetattr(STDIN_FILENO, &before_) == 0;
    if (!raw_) return;
    termios now = before_;
    cfmakeraw(&now);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &now);
    struct sigaction action {};
    action.sa_handler = [](int) { window_changed = 1; };
    sigaction(SIGWINCH, &action, nullptr);
  }
  ~RawTerminal() {
    if (raw_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  termios before_{};
  bool raw_ = false;
};

struct Size {
  int rows = 24, columns = 80;
};
Size window_size() {
  winsize now{};
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &now) != 0 || now.ws_row == 0 || now.ws_col == 0) return {};
  return {now.ws_row, now.ws_col};
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) return;  // nobody reads it
    if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
  }
}

/// The person's end of a session.
class Talk {
 public:
  Talk(http::ClientTunnel tunnel, bool terminal) : tunnel_(std::move(tunnel)), terminal_(terminal) {}
  /// Until the process has ended: its last message. Null: the person left. Errors: kUnavailable.
  Result<Json> run();

 private:
  void send(Opcode opcode, std::string_view data) { outgoing_ += http::socket_frame(opcode, data, mask_()); }
  void send(char channel, std::string_view data) {
    send(Opcode::kBinary, std::string(1, channel) + std::string(data));
  }
  void send_control(const Json& json) { send(kControl, dump_json(json)); }
  Status take(const std::vector<http::SocketMessage>& messages);
  void read_stdin();
  Status read_peer();
  Status write_peer();
  tl::unexpected<Error> lost() const {
    return fail(
        Code::kUnavailable,
        "the connection was lost (the controller or the node may have been started anew); what ran in the "
        "session was ended with it");
  }

  http::ClientTunnel tunnel_;
  const bool terminal_;
  http::SocketReader reader_{false};
  std::mt19937 mask_{std::random_device{}()};
  std::string outgoing_;
  Json last_;
  bool stdin_open_ = true, left_ = false;
};

Status Talk::take(const std::vector<http::SocketMessage>& messages) {
  for (const http::SocketMessage& message : messages) {
    if (message.opcode == Opcode::kPing) send(Opcode::kPong, message.data);
    if (message.opcode != Opcode::kBinary || message.data.empty()) continue;
    const std::string_view rest = std::string_view(message.data).substr(1);
    if (message.data[0] == kStdout) write_all(STDOUT_FILENO, rest);
    if (message.data[0] == kStderr) write_all(STDERR_FILENO, rest);
    if (message.data[0] == kControl) {
      TH_TRY(last_, parse_json(rest, "what the node says"));
    }
  }
  return {};
}

void Talk::read_stdin() {
  std::array<char, kPieceBytes> piece;
  const ssize_t n = read(STDIN_FILENO, piece.data(), piece.size());
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) {
    stdin_open_ = false;
    return send_control({{"stdin_closed", true}});
  }
  std::string_view typed(piece.data(), static_cast<size_t>(n));
  if (terminal_ && typed.find(kDetachKey) != typed.npos) {
    left_ = true;
    typed = typed.substr(0, typed.find(kDetachKey));
  }
  if (!typed.empty()) send(kStdin, typed);
  if (left_) send(Opcode::kClose, "");
}

Status Talk::read_peer() {
  std::array<char, kPieceBytes> piece;
  const ssize_t n = recv(tunnel_.fd.get(), piece.data(), piece.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
  if (n <= 0) return lost();
  TH_TRY(const auto messages, reader_.feed({piece.data(), static_cast<size_t>(n)}));
  return take(messages);
}

Status Talk::write_peer() {
  const ssize_t n = ::send(tunnel_.fd.get(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno != EAGAIN && errno != EINTR) return lost();
  if (n > 0) outgoing_.erase(0, static_cast<size_t>(n));
  return {};
}

Result<Json> Talk::run() {
  TH_TRY(const auto first, reader_.feed(tunnel_.early));
  TH_RETURN_IF_ERROR(take(first));
  while (last_.is_null()) {
    if (window_changed) {
      window_changed = 0;
      const Size size = window_size();
      send_control({{"resize", {{"rows", size.rows}, {"columns", size.columns}}}});
    }
    if (left_ && outgoing_.empty()) return Json();
    const bool listen = stdin_open_ && !left_ && outgoing_.size() < kMaxHeldBytes;
    pollfd items[] = {
        {listen ? STDIN_FILENO : -1, POLLIN, 0},
        {tunnel_.fd.get(), static_cast<short>(outgoing_.empty() ? POLLIN : POLLIN | POLLOUT), 0}};
    if (poll(items, 2, 500) < 0) continue;
    if (items[0].revents != 0) read_stdin();
    if (items[1].revents & (POLLIN | POLLHUP | POLLERR)) TH_RETURN_IF_ERROR(read_peer());
    if (items[1].revents & POLLOUT) TH_RETURN_IF_ERROR(write_peer());
  }
  return last_;
}

/// "job-1.2", "name", "name.0": the rank is the number after the last dot.
std::pair<std::string, int64_t> split_target(const std::string& target) {
  const size_t dot = target.rfind('.');
  int64_t rank = 0;
  if (dot != std::string::npos) {
    const char *begin = target.data() + dot + 1, *end = target.data() + target.size();
    const auto read = std::from_chars(begin, end, rank);
    if (begin != end && read.ptr == end && read.ec == std::errc()) return {target.substr(0, dot), rank};
  }
  return {target, 0};
}

Result<http::ClientTunnel> open_session(const Context& context, const std::string& id) {
  TH_TRY(http::Call call, context.call("GET", "/exec/" + id));
  call.timeout_ns = 30 * kSecond;  // the node comes within 20 s or not at all
  call.headers.emplace_back("Upgrade", "websocket");
  call.headers.emplace_back("Sec-WebSocket-Version", "13");
  std::random_device random;
  std::string key;
  for (int i = 0; i < 16; ++i) key.push_back(static_cast<char>(random()));
  call.headers.emplace_back("Sec-WebSocket-Key", to_base64(key));
  return http::open_tunnel(call);
}

/// th's exit status is the process's: its code, or 128 + the signal that ended it.
Result<Json> finish(Context& context, const Json& last, Json out) {
  if (last.is_null()) {
    fmt::print(stderr, "th: left the session; what ran in it gets SIGHUP\n");
    return out;
  }
  if (last.contains("error")) return fail(http::error_of({0, {}, dump_json(last)}));
  const int64_t signal = int_of(last, "signal");
  context.exit_status = static_cast<int>(signal ? 128 + signal : int_of(last, "exit_code"));
  const std::string reason = text_of(last, "reason");
  if (!reason.empty()) fmt::print(stderr, "th: the session was ended: {}\n", reason);
  out.update(last);
  return out;
}

Result<Json> talk(Context& context, const std::string& target, bool terminal) {
  const auto [job, rank] = split_target(target);
  const Size size = window_size();
  Json body = {{"rank", rank}, {"terminal", terminal}, {"rows", size.rows}, {"columns", size.columns}};
  if (!context.command.empty()) body["argv"] = context.command;
  TH_TRY(const Json session, context.post("/jobs/" + job + "/exec", body));
  TH_TRY(http::ClientTunnel tunnel, open_session(context, text_of(session, "id")));
  Result<Json> last = Json();
  {
    std::optional<RawTerminal> raw;
    if (terminal && isatty(STDIN_FILENO)) raw.emplace();
    last = Talk(std::move(tunnel), terminal).run();
  }
  if (!last) return fail(last.error());
  return finish(context, *last,
                {{"job", text_of(session, "job")}, {"rank", rank}, {"node", text_of(session, "node")}});
}

}  // namespace

void add_exec(CLI::App& app, Verb& verb) {
  struct Options {
    std::string target;
    bool terminal = false;
  };
  auto options = std::make_shared<Options>();

  auto* exec = app.add_subcommand("exec", "Run a command beside a rank of a running job");
  exec->add_option("JOB", options->target, "job or job.rank, such as job-1.0 (default: rank 0)")->required();
  exec->add_flag("-t,--tty", options->terminal, "give it a terminal");
  exec->footer(
      "Example:\n  th exec job-1.0 -- nvidia-smi\n"
      "The exit status is the command's, or 128 + the signal that ended it.");
  exec->callback([&verb, options] {
    verb = [options](Context& context) -> Result<Json> {
      if (context.command.empty())
        return fail(Code::kInvalidArgument, "no command: write it after '--', or use th attach for a shell");
      return talk(context, options->target, options->terminal);
    };
  });

  auto* attach = app.add_subcommand("attach", "Open a shell beside a rank of a running job");
  attach->add_option("JOB", options->target, "job or job.rank, such as job-1.0 (default: rank 0)")
      ->required();
  attach->footer("Example:\n  th attach job-1\nCtrl-] leaves; the shell gets SIGHUP then.");
  attach->callback([&verb, options] {
    verb = [options](Context& context) { return talk(context, options->target, true); };
  });
}

}  // namespace th::cli
