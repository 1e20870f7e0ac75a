#pragma once
// The Standard Workload Format of the Parallel Workloads Archive
// (https://www.cs.huji.ac.il/labs/parallel/workload/swf.html): 18 numbers a line, -1 for unknown, and
// comments
// "; MaxNodes: 128". A processor is taken as one GPU.

#include "sim/trace/queue_job.h"

namespace th::sim {

struct SwfTrace {
  std::vector<QueueJob> jobs;  // by submission, the first at 0
  int64_t never_ran = 0;       // lines of jobs without a run time or processors: cancelled while they waited
  int64_t max_nodes = 0;       // as the header says; 0: it does not
  int64_t max_procs = 0;
};

/// Errors: kInvalidArgument naming file and line: not 18 numbers, a negative time, more processors than the
/// cluster has. Cost: O(text).
Result<SwfTrace> read_swf(std::string_view text, const QueueTraceOptions& options, Skipped& skipped);

}  // namespace th::sim
