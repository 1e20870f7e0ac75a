#pragma once
// Starts a process that outlives this one.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/result.h"

namespace th::cloud {

/// Starts `program` as leader of its own session, child of init, with /dev/null as stdin and `log` (appended)
/// as output. `record` is called before the program is executed: nothing runs that was not recorded. An error
/// of it, or this process's death meanwhile, means that nothing was started. Errors: those of `record`,
/// kNotFound, kPermissionDenied, kResourceExhausted.
Result<ProcessId> spawn_detached(const std::filesystem::path& program, std::vector<std::string> arguments,
                                 const std::filesystem::path& log,
                                 const std::function<Status(ProcessId)>& record);

/// SIGTERM, after `grace_ns` SIGKILL; waits at most `timeout_ns` in all. A process that is gone is a success.
/// Errors: kDeadlineExceeded.
Status end_process(const ProcessId& process, int64_t grace_ns, int64_t timeout_ns);

}  // namespace th::cloud
