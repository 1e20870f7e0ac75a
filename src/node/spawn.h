#pragma once
// Starts one rank.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "node/user.h"

namespace th::node {

struct SpawnSpec {
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  // all of it: nothing of the node's own is passed on
  int cwd_fd = -1;               // folder, opened by the node; the user need not be able to reach it
  int log_fd = -1;               // becomes stdout and stderr
  int in_fd = -1;                // becomes stdin; -1: /dev/null
  int err_fd = -1;               // becomes stderr; -1: log_fd
  bool terminal = false;         // in_fd is one, and controls a session of the process's own
  int job_fd = -1;               // kept open as kJobFd in the rank; -1: none
  int cgroup_procs_fd = -1;      // open for writing; -1: none
  int64_t data_limit_bytes = 0;  // RLIMIT_DATA; 0: none
  std::optional<User> user;      // none: stay who we are
  bool hide_processes = false;   // /proc shows its own user's only (tenant.h)
  int network_fd = -1;           // the network namespace that it joins; -1: stays in ours
};

/// Where a rank finds the job's folder open when its user cannot reach it by path.
inline constexpr int kJobFd = 3;

/// Starts argv[0]: without '/', the program beside this one, else the first of env's PATH. It runs in its own
/// process group, dies by SIGKILL when the thread that called spawn() ends, has /dev/null as stdin and no
/// other descriptor, cannot gain privileges, and writes no core file. Programs beside this one are opened
/// before the user is changed. Returns: the pid, once the program has been executed; the caller reaps it.
/// Errors: kNotFound (program), kPermissionDenied (the user may not execute it), kResourceExhausted (no
/// process).
Result<pid_t> spawn(const SpawnSpec& spec);

/// SIGTERM, SIGINT and SIGCHLD come by the descriptor that is returned, SIGPIPE and SIGHUP not at all.
/// spawn() undoes this for its child.
UniqueFd block_signals();

}  // namespace th::node
