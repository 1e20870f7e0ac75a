#pragma once
// What the fuzz targets of job traces have in common.

#include "sim/trace/queue_job.h"

namespace th::sim {

/// `read`: (text, options, skipped) → Result of jobs. Refused or skipping, an error names the file and every
/// job that was taken is in range and `sound`.
template <class Read, class Sound>
int fuzz_trace(const uint8_t* data, size_t size, Read read, Sound sound) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (auto on_bad : {OnBadLine::kRefuse, OnBadLine::kSkip}) {
    const QueueTraceOptions options{.csv = {.file = "fuzz", .on_bad = on_bad}, .most_gpus = 64};
    Skipped skipped;
    auto jobs = read(text, options, skipped);
    if (!jobs) {
      TH_CHECK(jobs.error().message.starts_with("fuzz:"));
      continue;
    }
    for (const auto& job : *jobs) {
      TH_CHECK(job.gpus >= 1 && job.gpus <= 64 && job.submit_s >= 0);
      TH_CHECK(sound(job));
    }
  }
  return 0;
}

inline bool lasts_within_its_limit(const QueueJob& job) {
  return job.duration_s >= 0 && job.limit_s >= job.duration_s;
}

}  // namespace th::sim
