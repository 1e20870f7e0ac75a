#include "ranks.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <thread>

namespace th {
namespace {

void set(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

[[noreturn]] void become_rank(int rank, int ranks, pid_t parent, const std::vector<std::string>& arguments,
                              int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it ended before we asked to end with it
  dup2(rank == 0 ? output : 2, 1);
  set("RANK", std::to_string(rank));
  set("LOCAL_RANK", std::to_string(rank));
  set("WORLD_SIZE", std::to_string(ranks));
  set("LOCAL_WORLD_SIZE", std::to_string(ranks));
  set("MASTER_ADDR", "127.0.0.1");
  set("MASTER_PORT", "29500");  // only a name: ranks of one host open no port
  set("TH_JOB_ID", fmt::format("ranks-of-{}", parent));
  set("TH_ATTEMPT", "0");
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  setenv("OMP_NUM_THREADS", std::to_string(std::max(cores / ranks, 1)).c_str(), 0);
  std::string name = "th-train";
  std::vector<char*> argv = {name.data()};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv("/proc/self/exe", argv.data());
  _exit(127);
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was ended by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

void kill_all(const std::vector<pid_t>& pids) {
  for (pid_t pid : pids) {
    if (pid > 0) kill(pid, SIGKILL);
  }
}

/// Waits for any of them; which one, or -1.
int wait_for_any(const std::vector<pid_t>& pids, int& status) {
  // WNOWAIT leaves children that are not ours to whoever started them.
  siginfo_t info{};
  while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) != 0) {
    if (errno != EINTR) return -1;
  }
  const auto found = std::ranges::find(pids, info.si_pid);
  if (found == pids.end()) return -1;
  waitpid(info.si_pid, &status, 0);
  return static_cast<int>(found - pids.begin());
}

}  // namespace

Status run_ranks(int ranks, const std::vector<std::string>& arguments, int output) {
  const pid_t parent = getpid();
  std::vector<pid_t> pids;
  Status result;
  for (int rank = 0; rank < ranks && result; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) become_rank(rank, ranks, parent, arguments, output);
    if (pid < 0) result = fail(errno_error(fmt::format("rank {} cannot be started", rank), errno));
    if (pid > 0) pids.push_back(pid);
  }
  if (!result) kill_all(pids);
  for (size_t ended = 0; ended < pids.size(); ++ended) {
    int status = 0;
    const int rank = wait_for_any(pids, status);
    if (rank < 0) return fail(Code::kInternal, "a child of th-train that is no rank ended meanwhile");
    pids[rank] = 0;
    if (status == 0 || !result) continue;
    result = fail(Code::kUnavailable, fmt::format("rank {} {}", rank, how_it_ended(status)));
    kill_all(pids);
  }
  return result;
}

}  // namespace th
