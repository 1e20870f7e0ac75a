#include "sim/trace/swf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (auto on_bad : {th::sim::OnBadLine::kRefuse, th::sim::OnBadLine::kSkip}) {
    const th::sim::QueueTraceOptions options{.csv = {.file = "fuzz", .on_bad = on_bad}, .most_gpus = 64};
    th::sim::Skipped skipped;
    auto read = th::sim::read_swf(text, options, skipped);
    if (!read) {
      TH_CHECK(read.error().message.starts_with("fuzz:"));
      continue;
    }
    for (const auto& job : read->jobs) {
      TH_CHECK(job.gpus >= 1 && job.gpus <= 64 && job.submit_s >= 0);
      TH_CHECK(job.duration_s >= 0 && job.limit_s >= job.duration_s);
    }
  }
  return 0;
}
