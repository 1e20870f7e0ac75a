#pragma once
// What the traces of batch queues have in common: ITP, Philly, SWF.

#include "sim/trace/csv.h"

namespace th::sim {

struct QueueJob {
  double submit_s = 0;    // from the first submission of the trace
  double duration_s = 0;  // that it runs when nothing interrupts it
  double limit_s = 0;     // what its owner asked for, at least duration_s; the same where the trace has none
  int32_t gpus = 1;
};

struct QueueTraceOptions {
  CsvOptions csv;
  int64_t most_gpus = 0;  // of the cluster: a job that asks for more is a bad line; 0: any
};

/// Errors: kInvalidArgument "num_gpu: 128 GPUs, and the cluster has 64: ...".
Status check_gpus(std::string_view column, int64_t gpus, int64_t most);

/// Sorts by submission, ties in the file's order, and lets the first be at 0.
void from_first_submission(std::vector<QueueJob>& jobs);

}  // namespace th::sim
