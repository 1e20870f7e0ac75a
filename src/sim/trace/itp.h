#pragma once
// Traces of five Microsoft clusters, 2021: github.com/microsoft/elasticflow-traces.

#include "sim/trace/queue_job.h"

namespace th::sim {

/// Columns submission_time, duration (seconds), num_gpu. Jobs by submission, the first at 0. Errors: those of
/// read_csv.
Result<std::vector<QueueJob>> read_itp(std::string_view text, const QueueTraceOptions& options,
                                       Skipped& skipped);

}  // namespace th::sim
