#include "sim/trace/queue_job.h"

#include <fmt/format.h>

#include <algorithm>

namespace th::sim {

Status check_gpus(std::string_view column, int64_t gpus, int64_t most) {
  if (most == 0 || gpus <= most) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("{}: {} GPUs, and the cluster has {}: give more nodes or skip bad lines", column,
                          gpus, most));
}

void from_first_submission(std::vector<QueueJob>& jobs) {
  if (jobs.empty()) return;
  std::ranges::stable_sort(jobs, {}, &QueueJob::submit_s);
  const double first = jobs.front().submit_s;
  for (QueueJob& job : jobs) job.submit_s -= first;
}

}  // namespace th::sim
