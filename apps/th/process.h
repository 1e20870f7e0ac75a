#pragma once
// Processes that th starts and looks after.

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::cli {

/// A program of the same build: it lies beside th itself. Errors: kNotFound naming the path.
Result<std::filesystem::path> program_beside(const std::string& name);

/// Starts it in a session of its own, input from nothing, output appended to `log`. Returns its pid. Errors:
/// errno's.
Result<pid_t> spawn_detached(const std::vector<std::string>& argv, const std::filesystem::path& log);

struct Finished {
  int exit_status = 0;  // 128 + signal when a signal ended it
  std::string output;   // both streams, the first 64 KiB
};
/// Runs and waits. Errors: errno's.
Result<Finished> run_and_wait(const std::vector<std::string>& argv);
/// The same, but what it writes to stderr goes to ours: `output` is of stdout alone.
Result<Finished> run_and_show(const std::vector<std::string>& argv);

/// The exit status of a child of ours that has ended; reaps it.
std::optional<int> ended_child(pid_t pid);
/// Lives and is not a zombie. Reaps it when it is a child of ours that ended.
bool is_alive(pid_t pid);
/// is_alive() and runs `program`: guards against a pid that was given anew.
bool is_running(pid_t pid, const std::string& program);
/// Returns whether it ended within the time.
bool wait_gone(pid_t pid, int64_t timeout_ns);

/// What STATE/controld.json and gateway.json say.
struct Daemon {
  std::string url;
  pid_t pid = 0;
};
/// Nothing when the file is not there or makes no sense.
std::optional<Daemon> read_daemon(const std::filesystem::path& file);

}  // namespace th::cli
