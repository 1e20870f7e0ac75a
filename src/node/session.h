#pragma once
// A process beside a running task with which somebody speaks: `th exec` and `th attach`. Its streams go
// through a tunnel that this node dials, as messages of a WebSocket whose server the node is (docs/exec.md).

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/files.h"
#include "http/client.h"
#include "node/protocol.h"
#include "node/rank.h"

namespace th::node {

/// A message's first byte says what the rest is.
enum class Channel : char { kStdin = 0, kStdout = 1, kStderr = 2, kControl = 3 };

/// Thread: the node's main thread; the streams are carried by a thread of its own.
class Session {
 public:
  /// Starts the process beside `rank` (null: the task does not run here) and dials. What goes wrong is told
  /// through the tunnel.
  Session(SessionSpec spec, const Rank* rank, http::Call dial, const std::string& vm_dir);
  /// Ends what still runs.
  ~Session();

  const SessionSpec& spec() const { return spec_; }
  pid_t pid() const { return pid_; }  // 0: it could not be started
  /// The process is a zombie: takes its status and reaps it.
  void reap();
  /// Its task has ended, or the node does: SIGKILL.
  void end(const std::string& why);
  /// Nothing of it is left.
  bool done() const;

 private:
  struct Shared;
  Status start(const Rank& rank);

  const SessionSpec spec_;
  const std::string marker_;  // in the environment of all that it starts
  pid_t pid_ = 0;
  std::shared_ptr<Shared> shared_;
  std::jthread carrier_;
};

}  // namespace th::node
