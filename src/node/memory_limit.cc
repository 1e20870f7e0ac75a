#include "node/memory_limit.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "base/text.h"

namespace th::node {
namespace {

namespace fs = std::filesystem;

Status write_control(const fs::path& file, std::string_view text) {
  UniqueFd fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return fail(errno_error(fmt::format("writing {}", file.string()), errno));
  }
  return {};
}

/// Where the hierarchy is mounted, from /proc/self/mountinfo: "… / /sys/fs/cgroup/memory rw - cgroup cgroup
/// rw,memory".
std::optional<fs::path> mount_point(std::string_view type, std::string_view option) {
  auto text = read_file("/proc/self/mountinfo", 1 << 20);
  if (!text) return std::nullopt;
  for (const std::string& line : split(*text, '\n')) {
    std::vector<std::string> fields = split(line, ' ');
    for (size_t i = 5; i + 3 < fields.size(); ++i) {
      if (fields[i] != "-" || fields[i + 1] != type) continue;
      for (const std::string& have : split(fields[i + 3], ',')) {
        if (option.empty() || have == option) return fs::path(fields[4]);
      }
    }
  }
  return std::nullopt;
}

/// This process's cgroup folder: "4:memory:/x" (v1) or "0::/x" (v2) in /proc/self/cgroup, below the mount
/// point.
std::optional<fs::path> own_folder(bool v2) {
  auto mount = v2 ? mount_point("cgroup2", "") : mount_point("cgroup", "memory");
  auto text = read_file("/proc/self/cgroup", 1 << 20);
  if (!mount || !text) return std::nullopt;
  for (const std::string& line : split(*text, '\n')) {
    std::vector<std::string> fields = split(line, ':');
    if (fields.size() < 3 || (v2 ? fields[0] != "0" : fields[1] != "memory")) continue;
    fs::path folder = mount->string() + fields[2];
    // Inside a container the path may be the host's; the mount point is then already our own cgroup.
    return fs::exists(folder) ? folder : *mount;
  }
  return std::nullopt;
}

std::string limit_file(bool v2) { return v2 ? "memory.max" : "memory.limit_in_bytes"; }

/// A cgroup below ours in which children with a limit can be made, or nothing.
std::optional<fs::path> make_node_cgroup(const std::string& name, bool v2) {
  auto own = own_folder(v2);
  if (!own) return std::nullopt;
  fs::path dir = *own / name;
  if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return std::nullopt;
  bool usable = fs::exists(dir / limit_file(v2));
  if (usable && v2) usable = write_control(dir / "cgroup.subtree_control", "+memory").has_value();
  if (!usable) rmdir(dir.c_str());
  return usable ? std::optional(dir) : std::nullopt;
}

}  // namespace

TaskCgroup::TaskCgroup(fs::path dir, bool v2, UniqueFd procs)
    : dir_(std::move(dir)), v2_(v2), procs_(std::move(procs)) {}
TaskCgroup::TaskCgroup(TaskCgroup&& other) noexcept
    : dir_(std::exchange(other.dir_, {})), v2_(other.v2_), procs_(std::move(other.procs_)) {}
TaskCgroup& TaskCgroup::operator=(TaskCgroup&& other) noexcept {
  std::swap(dir_, other.dir_);
  std::swap(v2_, other.v2_);
  std::swap(procs_, other.procs_);
  return *this;
}
TaskCgroup::~TaskCgroup() {
  if (!dir_.empty()) rmdir(dir_.c_str());
}

bool TaskCgroup::oom_killed() const {
  if (dir_.empty()) return false;
  auto text = read_file(dir_ / (v2_ ? "memory.events" : "memory.oom_control"), 1 << 16);
  if (!text) return false;
  for (const std::string& line : split(*text, '\n')) {
    if (line.starts_with("oom_kill ")) return line != "oom_kill 0";
  }
  return false;
}

MemoryLimiter MemoryLimiter::detect(const std::string& name) {
  if (auto dir = make_node_cgroup(name, true)) return MemoryLimiter(Kind::kCgroupV2, *dir);
  if (auto dir = make_node_cgroup(name, false)) return MemoryLimiter(Kind::kCgroupV1, *dir);
  return MemoryLimiter(Kind::kRlimitData, {});
}

MemoryLimiter::MemoryLimiter(MemoryLimiter&& other) noexcept
    : kind_(other.kind_), dir_(std::exchange(other.dir_, {})) {}
MemoryLimiter::~MemoryLimiter() {
  if (!dir_.empty()) rmdir(dir_.c_str());
}

std::string MemoryLimiter::describe() const {
  if (kind_ == Kind::kRlimitData) return "RLIMIT_DATA of each process (no cgroup can be made here)";
  return fmt::format("cgroup {} at {}", kind_ == Kind::kCgroupV2 ? "v2" : "v1", dir_.string());
}

Result<TaskCgroup> MemoryLimiter::limit(const std::string& task, int64_t bytes) const {
  if (kind_ == Kind::kRlimitData || bytes == 0) return TaskCgroup();
  bool v2 = kind_ == Kind::kCgroupV2;
  fs::path dir = dir_ / task;
  if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail(errno_error(fmt::format("making {}", dir.string()), errno));
  }
  TaskCgroup made(dir, v2, UniqueFd(open((dir / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC)));
  if (made.procs_fd() < 0)
    return fail(errno_error(fmt::format("opening {}/cgroup.procs", dir.string()), errno));
  TH_RETURN_IF_ERROR(write_control(dir / limit_file(v2), std::to_string(bytes)));
  if (v2) (void)write_control(dir / "memory.swap.max", "0");  // not every kernel counts swap
  return made;
}

}  // namespace th::node
