#pragma once
// One task of this node, from its start to the moment when it is forgotten.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "node/config.h"
#include "node/log_file.h"
#include "node/memory_limit.h"
#include "node/metrics_tail.h"
#include "node/protocol.h"
#include "node/spawn.h"
#include "node/tenant.h"
#include "node/tenant_network.h"
#include "node/user.h"

namespace th::node {

/// What ranks share. Outlives them.
struct RankHost {
  const NodeConfig& config;
  const MemoryLimiter& limiter;
  const Isolation isolation;
  mutable TenantNetworks networks;
};

/// Times are monotonic nanoseconds unless they say otherwise. Thread: the node's main thread, whose end kills
/// the process.
class Rank {
 public:
  /// `user`: none: this process's own.
  Rank(Task task, std::optional<User> user, const RankHost& host)
      : task_(std::move(task)), user_(std::move(user)), host_(host) {
    report_.id = task_.id;
  }

  const Task& task() const { return task_; }
  LogFile& log() { return log_; }
  MetricsTail& metrics() { return metrics_; }
  int metrics_fd() const { return metrics_fd_; }
  bool running() const { return report_.state == TaskState::kRunning || report_.state == TaskState::kReady; }
  bool exited() const { return report_.state == TaskState::kExited; }
  const std::optional<User>& user() const { return user_; }
  pid_t pid() const { return static_cast<pid_t>(report_.pid); }

  /// Starts the process, or makes this an exited task with a reason. Pre: staged, not started.
  void start();
  /// Another process in the rank's folder, environment (with `env` over it), user and limits; its standard
  /// streams, terminal and argv are those of `spec`. The caller reaps it. Pre: running().
  Result<pid_t> spawn_beside(SpawnSpec spec, const std::map<std::string, std::string>& env) const;
  /// It cannot be started.
  void fail_to_start(std::string reason);
  void set_ready();

  /// SIGTERM now, SIGKILL after grace_ms. Again: no effect. A task that was not started is exited at once.
  void stop(int64_t now_ns);
  bool stopping() const { return stopping_; }
  /// Sends the signal that the task wants by now, unless that was done or nothing runs.
  void signal_once(const Task& task);
  /// When kill_overdue() has something to do; none: nothing to wait for.
  std::optional<int64_t> kill_at_ns() const;
  void kill_overdue(int64_t now_ns);

  /// The process is a zombie: takes its status, ends the rest of its group, reaps it.
  void reap(int64_t now_ns);

  /// The controller answers since `since_ns` (none: it does not). What waits to be handed over waits at least
  /// kDrainNs from then on.
  void in_touch(std::optional<int64_t> since_ns) { in_touch_since_ns_ = since_ns; }
  /// The controller has stored the lines up to this one.
  void ack_metrics(int64_t line_no, int64_t now_ns);

  /// Its metrics are stored, or there was time enough for that.
  bool metrics_drained(int64_t now_ns) const;
  /// Its metrics and log have been handed over, or there was time enough for that.
  bool drained(int64_t now_ns) const;
  /// When drained() will be true without further news; none: nobody knows, or the task has not exited.
  std::optional<int64_t> drained_at_ns() const;
  /// Pre: exited().
  int64_t exited_at_ns() const { return exited_at_ns_; }
  /// As the controller shall see it: exited only once it is drained, so that its last words come first.
  TaskReport report(int64_t now_ns) const;

 private:
  /// Where the rank is: folders that spec's descriptors are of, and spec but for streams and argv.
  struct Inside {
    UniqueFd folder, cwd;
    bool reachable = true;  // the user can reach the folder by its path
  };
  Result<Inside> open_inside_of(SpawnSpec& spec) const;
  Status try_start();
  std::map<std::string, std::string> environment(bool reachable) const;
  void exit_with(std::string reason, int64_t now_ns);

  Task task_;
  std::optional<User> user_;
  const RankHost& host_;
  TaskReport report_;
  LogFile log_;
  MetricsTail metrics_;
  int metrics_fd_ = -1;  // owned by metrics_
  TaskCgroup cgroup_;
  bool stopping_ = false;
  bool killed_ = false;
  int signalled_ = 0;
  int64_t kill_at_ns_ = 0;
  int64_t exited_at_ns_ = 0;
  int64_t acked_at_ns_ = 0;
  std::optional<int64_t> in_touch_since_ns_;
};

/// How long an exit waits for its log and metrics to be handed over to a controller that answers and takes
/// no more of them.
inline constexpr int64_t kDrainNs = 5'000'000'000;

}  // namespace th::node
