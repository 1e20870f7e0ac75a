#pragma once
// What a node and the controller say to each other (docs/protocols.md, "Node and controller"), as values and
// as JSON. Reading checks everything: types, names, paths, sizes. Errors of all readers: kInvalidArgument,
// naming the field.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace th::node {

// Limits that both sides keep to; what is over them is refused.
inline constexpr size_t kMaxTasks = 256;                  // of one node
inline constexpr size_t kMaxSessions = 64;                // of one node
inline constexpr int kMaxTerminalSide = 4096;             // rows, columns
inline constexpr size_t kMaxArguments = 1024;             // of one task: argv, env, files, stage, gpus
inline constexpr size_t kMaxMetricsLines = 256;           // of one report
inline constexpr size_t kMaxMetricsLineBytes = 16 << 10;  // longer lines of the metrics file are dropped
inline constexpr size_t kMaxLogChunkBytes = 512 << 10;    // of one log push
inline constexpr size_t kMaxSyncBytes = 8 << 20;          // of one body, either way
inline constexpr int64_t kMaxSyncWaitMs = 10'000;
/// Output that is taken from one task; what follows is dropped with a note in its log.
inline constexpr int64_t kMaxLogBytes = int64_t{256} << 20;

/// "job-1.2.0": job, attempt (from 1), rank. The job's name may itself have dots.
struct TaskId {
  std::string job;
  int attempt = 1;
  int rank = 0;
  std::string text() const;
  bool operator==(const TaskId&) const = default;
};
Result<TaskId> parse_task_id(std::string_view text);

/// What the node must be running.
struct Task {
  TaskId id;
  std::vector<std::string> argv;             // argv[0] without '/': beside th-node first, then PATH
  std::map<std::string, std::string> env;    // the node adds PATH, HOME, TH_JOB_DIR and TH_METRICS
  std::optional<std::string> cwd;            // absolute; none: the job's folder
  std::map<std::string, std::string> files;  // path in the job's folder → text
  std::map<std::string, std::string>
      stage;  // path in the job's folder → absolute path of a file or folder to copy
  std::vector<int> gpus;
  int64_t memory_bytes = 0;                 // 0: no limit
  int64_t grace_ms = 10'000;                // between SIGTERM and SIGKILL
  int signal = 0;                           // to be sent once while it runs, by kill(2)'s number; 0: none
  bool signal_leader_only = false;          // not to what the task has started
  std::optional<std::string> metrics_file;  // path in the job's folder
  std::optional<std::string> ready_url;     // answers 200 once the rank is ready
  bool operator==(const Task&) const = default;
};

inline constexpr const char* kSliceVariable = "TH_SLICE";
/// What that variable of the task says; empty: nothing that a folder could be called.
std::string slice_of(const Task& task);

enum class TaskState { kStarting, kRunning, kReady, kExited };
std::string_view state_name(TaskState state);

/// What became of a task so far.
struct TaskReport {
  TaskId id;
  TaskState state = TaskState::kStarting;
  int64_t pid = 0;
  std::optional<int> exit_code;  // exited by itself
  std::optional<int> signal;     // ended by a signal
  std::string reason;            // for people: "killed by SIGKILL (out of memory: limit 1 GiB)"
  int64_t started_ns = 0;        // 0: not yet
  int64_t ended_ns = 0;
  bool operator==(const TaskReport&) const = default;
};

struct MetricsLine {
  TaskId id;
  int64_t line_no = 0;  // from 1, of what this task wrote
  std::string line;     // a JSON object on one line, valid JSON
  bool operator==(const MetricsLine&) const = default;
};

struct Check {
  std::string name;
  bool ok = false;
  std::string value, want;
  bool operator==(const Check&) const = default;
};
struct Validation {
  bool ok = false;
  std::vector<Check> checks;
  bool operator==(const Validation&) const = default;
};

/// Node → controller.
struct SyncRequest {
  std::string boot_id;                   // of this run of the node: another one means that its tasks are gone
  int64_t have_generation = 0;           // of the desired list that the node acts on; 0: none
  std::optional<Validation> validation;  // none: not done yet
  std::string address;                   // where the ranks of this node are reached
  std::vector<TaskReport> tasks;
  std::vector<MetricsLine> metrics;
  bool operator==(const SyncRequest&) const = default;
};

/// A process that somebody wants beside a running task, and speaks with through a tunnel that the node dials.
struct SessionSpec {
  std::string session;  // "exec-" and hex digits
  TaskId task;
  std::vector<std::string> argv;  // empty: a shell
  bool terminal = false;
  int rows = 24, columns = 80;  // of the terminal
  bool operator==(const SessionSpec&) const = default;
};

/// What the node's dial asks to upgrade to: bytes as they come.
inline constexpr const char* kSessionProtocol = "thunderhead-session";

/// Controller → node.
struct SyncReply {
  int64_t generation = 0;
  std::vector<Task> tasks;
  std::map<std::string, int64_t> ack_metrics;  // task id text → last line that is stored
  std::vector<SessionSpec> sessions;           // that the node has not dialled yet
  bool operator==(const SyncReply&) const = default;
};

Json to_json(const Task& task);
Json to_json(const SessionSpec& session);
Json to_json(const SyncRequest& request);
Json to_json(const SyncReply& reply);
Result<Task> task_from_json(const Json& json);
Result<SessionSpec> session_from_json(const Json& json);
Result<SyncRequest> sync_request_from_json(const Json& json);
Result<SyncReply> sync_reply_from_json(const Json& json);

/// A relative path that stays inside its folder: no "..", no "//", no leading '/', no NUL, at most 255 bytes
/// a part.
Status check_inside_path(std::string_view path, std::string_view what);

}  // namespace th::node
