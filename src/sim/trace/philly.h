#pragma once
// Microsoft's Philly (ATC'19) as github.com/pkusys/ElasticFlow keeps it: 15 virtual clusters, 2017.

#include "sim/trace/queue_job.h"

namespace th::sim {

/// Columns timestamp ("2017-10-09 07:01:55", taken as UTC), duration (seconds), num_gpus, cluster; only rows
/// of `cluster` unless it is empty. Jobs by submission, the first at 0. Errors: those of read_csv; kNotFound
/// when no row is of `cluster`, with the ones there are.
Result<std::vector<QueueJob>> read_philly(std::string_view text, const QueueTraceOptions& options,
                                          std::string_view cluster, Skipped& skipped);

}  // namespace th::sim
