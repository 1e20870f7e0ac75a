#include "process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/units.h"
#include "context.h"
#include "terminal.h"

extern char** environ;

namespace th::cli {
namespace {

constexpr size_t kMaxOutputBytes = size_t{64} << 10;

int status_of_wait(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/// posix_spawn with `out` and `err` as its outputs.
Result<pid_t> spawn(const std::vector<std::string>& argv, int out, int err, short flags) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, flags);
  std::vector<char*> arguments;
  for (const auto& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  int error = ::posix_spawn(&pid, argv[0].c_str(), &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(errno_error("start " + argv[0], error));
  return pid;
}

}  // namespace

Result<std::filesystem::path> program_beside(const std::string& name) {
  const auto path = program_folder() / name;
  if (::access(path.c_str(), X_OK) != 0) {
    return fail(
        Code::kNotFound,
        fmt::format("{} is not there or cannot be run; it must lie beside th: build it", path.string()));
  }
  return path;
}

Result<pid_t> spawn_detached(const std::vector<std::string>& argv, const std::filesystem::path& log) {
  UniqueFd out(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!out) return fail(errno_error("open " + log.string(), errno));
  return spawn(argv, out.get(), out.get(), POSIX_SPAWN_SETSID);
}

namespace {

Result<Finished> run(const std::vector<std::string>& argv, bool shows_errors) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(errno_error("pipe", errno));
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  TH_TRY(pid_t pid, spawn(argv, out.get(), shows_errors ? STDERR_FILENO : out.get(), 0));
  out = UniqueFd();
  Finished finished;
  char chunk[4096];
  while (true) {
    ssize_t n = ::read(in.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    if (finished.output.size() < kMaxOutputBytes) finished.output.append(chunk, size_t(n));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  finished.exit_status = status_of_wait(status);
  return finished;
}

}  // namespace

Result<Finished> run_and_wait(const std::vector<std::string>& argv) { return run(argv, false); }

Result<Finished> run_and_show(const std::vector<std::string>& argv) { return run(argv, true); }

std::optional<int> ended_child(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, WNOHANG) != pid) return std::nullopt;
  return status_of_wait(status);
}

bool is_alive(pid_t pid) {
  if (pid <= 0 || ended_child(pid)) return false;
  auto stat = read_file(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat) return false;
  size_t end = stat->rfind(") ");
  return end != std::string::npos && end + 2 < stat->size() && (*stat)[end + 2] != 'Z' &&
         (*stat)[end + 2] != 'X';
}

bool is_running(pid_t pid, const std::string& program) {
  if (!is_alive(pid)) return false;
  auto comm = read_file(fmt::format("/proc/{}/comm", pid), 64);
  return comm && *comm == program.substr(0, 15) + "\n";
}

bool wait_gone(pid_t pid, int64_t timeout_ns) {
  for (int64_t end = monotonic_now_ns() + timeout_ns; is_alive(pid);) {
    if (monotonic_now_ns() > end) return false;
    ::usleep(20'000);
  }
  return true;
}

std::optional<Daemon> read_daemon(const std::filesystem::path& file) {
  auto text = read_file(file, 4096);
  if (!text) return std::nullopt;
  auto json = parse_json(*text, file.string());
  if (!json) return std::nullopt;
  Daemon daemon{text_of(*json, "url"), static_cast<pid_t>(int_of(*json, "pid"))};
  if (daemon.url.empty() || daemon.pid <= 0) return std::nullopt;
  return daemon;
}

}  // namespace th::cli
