#include "node/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "base/files.h"
#include "base/text.h"
#include "node/tenant.h"

namespace th::node {
namespace {

/// What the child could not do, sent to the parent through a pipe.
enum class Step : int { kSetup, kLimit, kFolder, kApart, kUser, kExec };
struct Failure {
  Step step;
  int error;
};

struct Program {
  UniqueFd fd;       // beside this program
  std::string path;  // elsewhere
};

/// Asked for the rank's user, since this process may be root and find what the user cannot reach.
bool can_execute(const std::optional<User>& user, const std::string& path) {
  const OpensAs as(user);
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0;
}

/// Beside this program by an open descriptor, elsewhere by path.
Result<Program> find_program(const SpawnSpec& spec) {
  const std::string& name = spec.argv[0];
  if (name.find('/') != std::string::npos) return Program{{}, name};
  const auto here = program_folder() / name;
  UniqueFd beside(open(here.c_str(), O_PATH | O_CLOEXEC));
  if (beside && access(here.c_str(), X_OK) == 0) return Program{std::move(beside), here};
  auto path = spec.env.find("PATH");
  for (const std::string& folder : split(path == spec.env.end() ? "/usr/bin:/bin" : path->second, ':')) {
    std::string candidate = folder + "/" + name;
    if (!folder.empty() && can_execute(spec.user, candidate)) return Program{{}, candidate};
  }
  return fail(
      Code::kNotFound,
      fmt::format("program '{}' is neither beside th-node nor in PATH{}; install it or give its path", name,
                  spec.user ? fmt::format(" where user '{}' may execute it", spec.user->name) : ""));
}

/// Everything the child needs, allocated before the fork: between fork and exec only system calls are safe.
struct Prepared {
  const SpawnSpec& spec;
  Program program;
  std::vector<std::string> variables;
  std::vector<char*> argv, envp;
  UniqueFd null, job;
  pid_t parent;

  Prepared(const SpawnSpec& s, Program p) : spec(s), program(std::move(p)), parent(getpid()) {
    for (const auto& [name, value] : spec.env) variables.push_back(name + "=" + value);
    for (const std::string& argument : spec.argv) argv.push_back(const_cast<char*>(argument.c_str()));
    for (const std::string& variable : variables) envp.push_back(const_cast<char*>(variable.c_str()));
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    null = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    // The child overwrites kJobFd, so none of the descriptors that it uses after that may be kJobFd itself.
    if (spec.job_fd >= 0) job = UniqueFd(fcntl(spec.job_fd, F_DUPFD_CLOEXEC, kJobFd + 1));
    if (program.fd) program.fd = UniqueFd(fcntl(program.fd.get(), F_DUPFD_CLOEXEC, kJobFd + 1));
  }
};

[[noreturn]] void give_up(int report_fd, Step step) {
  Failure failure{step, errno};
  [[maybe_unused]] ssize_t n = write(report_fd, &failure, sizeof failure);
  _exit(127);
}

void reset_signals() {
  for (int signal : {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool limit(const SpawnSpec& spec) {
  if (spec.cgroup_procs_fd >= 0 && write(spec.cgroup_procs_fd, "0", 1) != 1) return false;
  rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return false;
  auto bytes = static_cast<rlim_t>(spec.data_limit_bytes);
  rlimit data{bytes, bytes};
  return bytes == 0 || setrlimit(RLIMIT_DATA, &data) == 0;
}

/// By system call: the library's wrappers would look for the other threads, which the child does not have.
bool become(const User& user) {
  return syscall(SYS_setgroups, user.groups.size(), user.groups.data()) == 0 &&
         syscall(SYS_setresgid, user.gid, user.gid, user.gid) == 0 &&
         syscall(SYS_setresuid, user.uid, user.uid, user.uid) == 0;
}

[[noreturn]] void run_child(const Prepared& p, int report_fd) {
  const SpawnSpec& spec = p.spec;
  reset_signals();
  const bool own_group = spec.terminal ? setsid() > 0 : setpgid(0, 0) == 0;
  if (!own_group || dup2(spec.in_fd < 0 ? p.null.get() : spec.in_fd, 0) < 0 || dup2(spec.log_fd, 1) < 0 ||
      dup2(spec.err_fd < 0 ? spec.log_fd : spec.err_fd, 2) < 0 ||
      (spec.terminal && ioctl(0, TIOCSCTTY, 0) != 0)) {
    give_up(report_fd, Step::kSetup);
  }
  if (!limit(spec)) give_up(report_fd, Step::kLimit);
  if (fchdir(spec.cwd_fd) != 0) give_up(report_fd, Step::kFolder);
  // After the folder, which would else lie outside of its mounts; before it loses the right.
  const bool joined = spec.network_fd < 0 || syscall(SYS_setns, spec.network_fd, CLONE_NEWNET) == 0;
  if (!joined || (spec.hide_processes && !hide_other_processes())) give_up(report_fd, Step::kApart);
  if (spec.user && !become(*spec.user)) give_up(report_fd, Step::kUser);
  // A change of user clears the death signal, so it comes after; the parent may have died before it was set.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    give_up(report_fd, Step::kSetup);
  }
  if (getppid() != p.parent) _exit(127);
  if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) != 0) give_up(report_fd, Step::kSetup);
  // Descriptor 3 may be one that is still needed here; then the copy moved it out of the way first (see
  // spawn()).
  if (spec.job_fd >= 0 && dup2(spec.job_fd, kJobFd) < 0) give_up(report_fd, Step::kSetup);
  if (p.program.fd) {
    syscall(SYS_execveat, p.program.fd.get(), "", p.argv.data(), p.envp.data(), AT_EMPTY_PATH);
  } else {
    execve(p.program.path.c_str(), p.argv.data(), p.envp.data());
  }
  give_up(report_fd, Step::kExec);
}

Error explain(const Failure& failure, const Prepared& p) {
  switch (failure.step) {
    case Step::kSetup:
      return errno_error("preparing the process", failure.error);
    case Step::kLimit:
      return errno_error("setting the memory limit", failure.error);
    case Step::kFolder:
      return errno_error("entering the working folder", failure.error);
    case Step::kApart:
      return errno_error("keeping the process apart from other tenants'", failure.error);
    case Step::kUser:
      return errno_error(fmt::format("becoming user '{}'", p.spec.user->name), failure.error);
    case Step::kExec:
      break;
  }
  Error error = errno_error(fmt::format("executing '{}'", p.program.path), failure.error);
  if (p.spec.user) error.message += fmt::format(" (as user '{}')", p.spec.user->name);
  return error;
}

}  // namespace

Result<pid_t> spawn(const SpawnSpec& spec) {
  TH_CHECK(!spec.argv.empty() && spec.cwd_fd >= 0 && spec.log_fd >= 0);
  TH_TRY(Program program, find_program(spec));
  Prepared prepared(spec, std::move(program));
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail(errno_error("making a pipe", errno));
  UniqueFd report(ends[0]);
  UniqueFd child_report(fcntl(ends[1], F_DUPFD_CLOEXEC, kJobFd + 1));
  close(ends[1]);
  pid_t pid = fork();
  if (pid < 0) {
    return fail(Code::kResourceExhausted, errno_error("starting a process", errno).message);
  }
  if (pid == 0) run_child(prepared, child_report.get());
  // Here too, so that a stop right now already reaches the group; a leader could not make its session any
  // more.
  if (!spec.terminal) setpgid(pid, pid);
  child_report = UniqueFd();
  Failure failure{};
  ssize_t n;
  do {
    n = read(report.get(), &failure, sizeof failure);
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return pid;  // the pipe closed by the exec
  waitpid(pid, nullptr, 0);
  return fail(explain(failure, prepared));
}

UniqueFd block_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace th::node
