#include "sim/trace/itp.h"

#include <array>

namespace th::sim {

Result<std::vector<QueueJob>> read_itp(std::string_view text, const QueueTraceOptions& options,
                                       Skipped& skipped) {
  static constexpr std::array<std::string_view, 3> kColumns = {"submission_time", "duration", "num_gpu"};
  constexpr double kMaxSeconds = 1e10;
  std::vector<QueueJob> jobs;
  TH_RETURN_IF_ERROR(read_csv(text, options.csv, kColumns, skipped, [&](const Row& row) -> Status {
    TH_TRY(double submit_s, row.real(0, 0, kMaxSeconds));
    TH_TRY(double duration_s, row.real(1, 0, kMaxSeconds));
    TH_TRY(int64_t gpus, row.integer(2, 1, INT32_MAX));
    TH_RETURN_IF_ERROR(check_gpus("num_gpu", gpus, options.most_gpus));
    jobs.push_back({submit_s, duration_s, duration_s, static_cast<int32_t>(gpus)});
    return {};
  }));
  from_first_submission(jobs);
  return jobs;
}

}  // namespace th::sim
