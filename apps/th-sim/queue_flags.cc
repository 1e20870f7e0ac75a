#include "queue_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sim/report/report.h"

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

Status write_queue_report(const std::string& path, std::string_view command, const Json& values,
                          const sim::QueueSamples& samples, int64_t gpus) {
  if (path.empty()) return {};
  sim::Report report;
  report.title = fmt::format("{}: {} GPUs under {}", values.at("trace").get<std::string>(), gpus,
                             values.at("policy").get<std::string>());
  report.command = fmt::format("th-sim {}", command);
  for (const char* flag : {"trace", "policy", "durations", "protocol", "cluster", "nodes", "gpus_per_node"}) {
    if (!values.contains(flag)) continue;
    std::string name = flag;
    std::ranges::replace(name, '_', '-');
    const Json& value = values.at(flag);
    report.command +=
        fmt::format(" --{} {}", name, value.is_string() ? value.get<std::string>() : dump_json(value));
  }
  for (const auto& [key, value] : values.items())
    report.figures.emplace_back(key, value.is_string() ? value.get<std::string>() : dump_json(value));
  sim::Track used("GPUs in use"), waiting("jobs that wait");
  for (const sim::QueueSample& sample : samples.all()) {
    used.set(sample.time_s, 100.0 * static_cast<double>(sample.gpus) / static_cast<double>(gpus));
    waiting.set(sample.time_s, static_cast<double>(sample.waiting));
    report.end_s = sample.time_s;
  }
  report.charts = {{"GPUs in use", "%", {std::move(used)}}, {"Queue", "jobs", {std::move(waiting)}}};
  return sim::write_report(report, path);
}

}  // namespace th
