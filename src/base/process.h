#pragma once
// Processes by an identity that a reused pid cannot fake. Linux only (/proc).

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace th {

/// A pid and when the kernel started it, in clock ticks since boot.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  bool operator==(const ProcessId&) const = default;
};

/// The process that has this pid now; none when there is none or it is a zombie.
std::optional<ProcessId> find_process(pid_t pid);
bool is_running(const ProcessId& process);

/// SIGKILL to every process of the session `session`, and to every one whose environment has `marker`
/// ("NAME=value"; best effort: only what this process may look into; empty: none). Never to this process.
/// Returns how many were there: call until it is 0. Cost: reads /proc once.
int kill_leftovers(pid_t session, std::string_view marker);

}  // namespace th
