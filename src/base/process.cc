#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/text.h"

namespace th {
namespace {

struct Stat {
  char state = 0;
  pid_t session = 0;
  uint64_t start_ticks = 0;
};

/// Files of /proc have no size; a process's environment may be large, so it is read whole up to 1 MiB.
std::string read_proc(pid_t pid, const char* name) {
  UniqueFd fd(open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> buffer;
  while (fd && text.size() < (1u << 20)) {
    ssize_t n = read(fd.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    text.append(buffer.data(), n);
  }
  return text;
}

std::optional<Stat> read_stat(pid_t pid) {
  std::string text = read_proc(pid, "stat");
  // "pid (any name) S ppid pgrp session … starttime": the name may hold anything, so count from its last ')'.
  size_t end = text.rfind(')');
  if (end == std::string::npos || end + 2 >= text.size()) return std::nullopt;
  std::vector<std::string> fields = split(std::string_view(text).substr(end + 2), ' ');
  if (fields.size() < 20) return std::nullopt;
  auto number = [&](size_t at) {
    uint64_t value = 0;
    std::from_chars(fields[at].data(), fields[at].data() + fields[at].size(), value);
    return value;
  };
  return Stat{fields[0][0], static_cast<pid_t>(number(3)), number(19)};
}

bool has_marker(pid_t pid, std::string_view marker) {
  if (marker.empty()) return false;
  for (const std::string& variable : split(read_proc(pid, "environ"), '\0')) {
    if (variable == marker) return true;
  }
  return false;
}

bool is_leftover(pid_t pid, pid_t session, std::string_view marker) {
  auto stat = read_stat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return false;
  return (session > 0 && stat->session == session) || has_marker(pid, marker);
}

}  // namespace

std::optional<ProcessId> find_process(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  auto stat = read_stat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
  return ProcessId{pid, stat->start_ticks};
}

bool is_running(const ProcessId& process) { return find_process(process.pid) == process; }

int kill_leftovers(pid_t session, std::string_view marker) {
  std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), closedir);
  int found = 0;
  while (dirent* entry = proc ? readdir(proc.get()) : nullptr) {
    pid_t pid = 0;
    std::string_view name = entry->d_name;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc() || pid == getpid())
      continue;
    if (!is_leftover(pid, session, marker)) continue;
    // The pid may change hands between the look and the signal; a pidfd does not, so look again through one.
    UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!fd || !is_leftover(pid, session, marker)) continue;
    ++found;
    syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0);
  }
  return found;
}

}  // namespace th
