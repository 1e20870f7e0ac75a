#include "sim/trace/philly.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <set>

#include "base/text.h"

namespace th::sim {
namespace {

/// Seconds since 1970 of "YYYY-MM-DD HH:MM:SS"; negative when it is not that.
int64_t parse_timestamp(std::string_view text) {
  if (text.size() != 19) return -1;
  std::array<int, 6> part{};
  constexpr std::array<size_t, 6> kAt = {0, 5, 8, 11, 14, 17};
  constexpr std::string_view kShape = "dddd-dd-dd dd:dd:dd";
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kShape[i] == 'd' ? !digit : text[i] != kShape[i]) return -1;
  }
  for (size_t i = 0; i < part.size(); ++i)
    std::from_chars(text.data() + kAt[i], text.data() + kAt[i] + (i == 0 ? 4 : 2), part[i]);
  const std::chrono::year_month_day day{std::chrono::year(part[0]),
                                        std::chrono::month(static_cast<unsigned>(part[1])),
                                        std::chrono::day(static_cast<unsigned>(part[2]))};
  if (!day.ok() || part[0] < 1970 || part[3] > 23 || part[4] > 59 || part[5] > 60) return -1;
  const int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  return ((days * 24 + part[3]) * 60 + part[4]) * 60 + part[5];
}

}  // namespace

Result<std::vector<QueueJob>> read_philly(std::string_view text, const QueueTraceOptions& options,
                                          std::string_view cluster, Skipped& skipped) {
  static constexpr std::array<std::string_view, 4> kColumns = {"timestamp", "duration", "num_gpus",
                                                               "cluster"};
  constexpr double kMaxSeconds = 1e10;
  constexpr size_t kMaxNamed = 32;
  std::vector<QueueJob> jobs;
  std::set<std::string> others;
  TH_RETURN_IF_ERROR(read_csv(text, options.csv, kColumns, skipped, [&](const Row& row) -> Status {
    const int64_t submit_s = parse_timestamp(row.text(0));
    if (submit_s < 0) {
      return fail(Code::kInvalidArgument,
                  fmt::format("timestamp: want YYYY-MM-DD HH:MM:SS, got '{}'", row.text(0).substr(0, 40)));
    }
    TH_TRY(double duration_s, row.real(1, 0, kMaxSeconds));
    TH_TRY(int64_t gpus, row.integer(2, 1, INT32_MAX));
    if (!cluster.empty() && row.text(3) != cluster) {
      if (others.size() < kMaxNamed) others.emplace(row.text(3));
      return {};
    }
    TH_RETURN_IF_ERROR(check_gpus("num_gpus", gpus, options.most_gpus));
    jobs.push_back({static_cast<double>(submit_s), duration_s, duration_s, static_cast<int32_t>(gpus)});
    return {};
  }));
  if (jobs.empty() && !others.empty()) {
    return fail(Code::kNotFound,
                fmt::format("{}: no job is of cluster '{}'; there are {}", options.csv.file, cluster,
                            join(std::vector<std::string>(others.begin(), others.end()), ", ")));
  }
  from_first_submission(jobs);
  return jobs;
}

}  // namespace th::sim
