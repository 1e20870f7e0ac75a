#pragma once
// The memory limit of a rank: a cgroup where this process may make one, else RLIMIT_DATA.

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/files.h"
#include "base/result.h"

namespace th::node {

/// A cgroup of one rank. Removed by the destructor, which the processes in it must precede.
class TaskCgroup {
 public:
  TaskCgroup() = default;
  TaskCgroup(std::filesystem::path dir, bool v2, UniqueFd procs);
  TaskCgroup(TaskCgroup&& other) noexcept;
  TaskCgroup& operator=(TaskCgroup&& other) noexcept;
  ~TaskCgroup();

  /// Open for writing, -1 when there is no cgroup.
  int procs_fd() const { return procs_.get(); }
  /// The kernel killed something in it for its memory.
  bool oom_killed() const;

 private:
  std::filesystem::path dir_;
  bool v2_ = false;
  UniqueFd procs_;
};

/// Where this machine lets us limit memory. Thread: one owner.
class MemoryLimiter {
 public:
  enum class Kind { kCgroupV2, kCgroupV1, kRlimitData };

  /// Looks for a memory controller in which this process may make cgroups; `name` is that of the one it
  /// makes.
  static MemoryLimiter detect(const std::string& name);
  MemoryLimiter(MemoryLimiter&& other) noexcept;
  MemoryLimiter& operator=(MemoryLimiter&&) = delete;
  ~MemoryLimiter();

  Kind kind() const { return kind_; }
  std::string describe() const;  // "cgroup v1 at /sys/fs/cgroup/memory/…"
  /// The folder of the node's cgroup; empty for kRlimitData. Whoever cleans up after a killed node removes
  /// it.
  const std::filesystem::path& dir() const { return dir_; }
  /// An empty cgroup for kRlimitData and for bytes == 0.
  Result<TaskCgroup> limit(const std::string& task, int64_t bytes) const;

 private:
  MemoryLimiter(Kind kind, std::filesystem::path dir) : kind_(kind), dir_(std::move(dir)) {}
  Kind kind_ = Kind::kRlimitData;
  std::filesystem::path dir_;
};

}  // namespace th::node
