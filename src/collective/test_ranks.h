#pragma once
// Ranks of a test as processes: each is a fork that reports through its exit code.

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace th::collective {

inline pid_t spawn(const std::function<bool()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body() ? 0 : 1);
  return pid;
}

/// Waits for its end; 128 and the number of the signal where one ended it.
inline int exit_code(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace th::collective
