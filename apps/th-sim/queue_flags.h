#pragma once
// What the commands that run a trace of jobs share: the trace's flags, checks, and their report.

#include "command.h"
#include "sim/queue/outcome.h"
#include "sim/trace/queue_job.h"

namespace th {

struct TraceFlags {
  std::string path;
  std::string bad_lines = "refuse";

  void add(Flags& flags);
  sim::QueueTraceOptions options(int64_t most_gpus) const;
};

/// Errors: kInvalidArgument "--nodes: want 1 to 100, got 0".
Status check_range(const char* flag, int64_t value, int64_t least, int64_t most);
/// Errors: kInvalidArgument, there are no jobs.
Status check_some(size_t jobs, const std::string& path);
/// skipped_lines, and the first of them.
void add_skipped(Json& out, const sim::Skipped& skipped);
/// What `command` came to, as a page. Nothing when `path` is empty.
Status write_queue_report(const std::string& path, std::string_view command, const Json& values,
                          const sim::QueueSamples& samples, int64_t gpus);

}  // namespace th
