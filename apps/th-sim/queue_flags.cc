#include "queue_flags.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace th {

void TraceFlags::add(Flags& flags) {
  flags.required("--trace", path, "the trace, plain or gzipped");
  flags.choice("--bad-lines", bad_lines, {"refuse", "skip"}, "what to do with a line that is wrong");
}

sim::QueueTraceOptions TraceFlags::options(int64_t most_gpus) const {
  return {
      .csv = {.file = path, .on_bad = bad_lines == "skip" ? sim::OnBadLine::kSkip : sim::OnBadLine::kRefuse},
      .most_gpus = most_gpus};
}

Status check_range(const char* flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return fail(Code::kInvalidArgument, fmt::format("{}: want {} to {}, got {}", flag, least, most, value));
}

Status check_some(size_t jobs, const std::string& path) {
  if (jobs > 0) return {};
  return fail(Code::kInvalidArgument, path + ": there are no jobs in it");
}

void add_skipped(Json& out, const sim::Skipped& skipped) {
  out["skipped_lines"] = skipped.lines;
  if (skipped.lines > 0) out["skipped"] = skipped.first;
}

Status write_queue_report(const std::string& path, const Json& values, const sim::QueueSamples& samples,
                          int64_t gpus) {
  (void)values, (void)samples, (void)gpus;
  if (path.empty()) return {};
  return fail(Code::kFailedPrecondition, "--report: this command does not write one yet");
}

}  // namespace th
