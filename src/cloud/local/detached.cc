#include "cloud/local/detached.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/env.h"
#include "base/files.h"
#include "base/units.h"

namespace th::cloud {
namespace {

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail(errno_error("making a pipe", errno));
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

template <class T>
bool receive(const UniqueFd& fd, T& value) {
  ssize_t n;
  do {
    n = read(fd.get(), &value, sizeof value);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(sizeof value);
}

template <class T>
bool tell(const UniqueFd& fd, const T& value) {
  return write(fd.get(), &value, sizeof value) == static_cast<ssize_t>(sizeof value);
}

/// What both forked processes use; allocated before the fork, since only system calls are safe after it.
struct Prepared {
  std::vector<std::string> arguments;
  std::vector<char*> argv;
  UniqueFd null, log;
  Pipe up, go;  // child → parent: pid, then errno of a failed exec; parent → child: one byte
};

[[noreturn]] void run_node_process(const Prepared& p) {
  pid_t self = getpid();
  char go = 0;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int signal : {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  bool ready = dup2(p.null.get(), 0) >= 0 && dup2(p.log.get(), 1) >= 0 && dup2(p.log.get(), 2) >= 0 &&
               chdir("/") == 0 && syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
  if (!ready || !tell(p.up.write, self) || !receive(p.go.read, go)) _exit(127);
  execv(p.argv[0], p.argv.data());
  int error = errno;
  tell(p.up.write, error);
  _exit(127);
}

[[noreturn]] void run_middle_process(const Prepared& p) {
  setsid();
  // Its copy of the other end would keep the last process waiting for a parent that died.
  syscall(SYS_close_range, p.go.write.get(), p.go.write.get(), 0);
  pid_t pid = fork();
  if (pid != 0) _exit(pid < 0 ? 1 : 0);
  setsid();
  run_node_process(p);
}

}  // namespace

Result<ProcessId> spawn_detached(const std::filesystem::path& program, std::vector<std::string> arguments,
                                 const std::filesystem::path& log,
                                 const std::function<Status(ProcessId)>& record) {
  Prepared p;
  p.arguments = std::move(arguments);
  p.arguments.insert(p.arguments.begin(), program.string());
  for (std::string& argument : p.arguments) p.argv.push_back(argument.data());
  p.argv.push_back(nullptr);
  p.null = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  p.log = UniqueFd(open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  if (!p.null || !p.log) return fail(errno_error(fmt::format("opening {}", log.string()), errno));
  TH_TRY(p.up, make_pipe());
  TH_TRY(p.go, make_pipe());
  pid_t middle = fork();
  if (middle < 0) return fail(Code::kResourceExhausted, errno_error("starting a process", errno).message);
  if (middle == 0) run_middle_process(p);
  p.up.write = UniqueFd();
  p.go.read = UniqueFd();
  waitpid(middle, nullptr, 0);
  pid_t pid = 0;
  auto process = receive(p.up.read, pid) ? find_process(pid) : std::nullopt;
  if (!process) return fail(Code::kResourceExhausted, fmt::format("starting {} failed", program.string()));
  TH_RETURN_IF_ERROR(record(*process));
  int error = 0;
  if (!tell(p.go.write, 'g') || receive(p.up.read, error)) {
    return fail(errno_error(fmt::format("executing {}", program.string()), error));
  }
  return *process;
}

Status end_process(const ProcessId& process, int64_t grace_ns, int64_t timeout_ns) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  if (!fd || !is_running(process))
    return {};  // checked after the pidfd, which from now on is this very process
  auto signal_and_wait = [&](int signal, int64_t wait_ns) {
    syscall(SYS_pidfd_send_signal, fd.get(), signal, nullptr, 0);
    pollfd poller{fd.get(), POLLIN, 0};
    return poll(&poller, 1, static_cast<int>(std::max<int64_t>(wait_ns, 0) / kMillisecond)) == 1;
  };
  int64_t start = Env::real().monotonic_ns();
  if (signal_and_wait(SIGTERM, std::min(grace_ns, timeout_ns))) return {};
  if (signal_and_wait(SIGKILL, timeout_ns - (Env::real().monotonic_ns() - start))) return {};
  return fail(Code::kDeadlineExceeded, fmt::format("process {} does not end; try again", process.pid));
}

}  // namespace th::cloud
