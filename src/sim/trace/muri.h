#pragma once
// Traces of Muri (SIGCOMM'22, github.com/Rivendile/Muri, folder trace-data): Philly-derived training jobs.

#include <string>
#include <vector>

#include "sim/trace/queue_job.h"

namespace th::sim {

struct MuriJob {
  std::string id;
  int32_t gpus = 1;
  double submit_s = 0;
  double iterations = 0;
  double iteration_s = 0;  // the trace's, times 1.015 as Muri's simulator does
  double start_s = 10;     // that a start takes, by model and GPUs
};

/// Columns job_id, num_gpu, submit_time (ms), iterations, iteration_time (ms), model_name.
/// Returns: jobs by submission, ties in the file's order. Errors: those of read_csv.
Result<std::vector<MuriJob>> read_muri(std::string_view text, const QueueTraceOptions& options,
                                       Skipped& skipped);

}  // namespace th::sim
