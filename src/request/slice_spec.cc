#include "request/slice_spec.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/units.h"
#include "fleet/series.h"
#include "request/fields.h"

namespace th::request {
namespace {

constexpr int64_t kMaxMoney = int64_t{1'000'000} * 1'000'000;  // a million dollars for one GPU-hour

std::optional<Problem> find_problem(const SliceSpec& spec) {
  if (auto problem = name_problem("name", spec.name)) return problem;
  if (auto problem = range_problem("gpus", spec.gpus, 1, kMaxRequestGpus)) return problem;
  if (auto series = fleet::find_series(spec.series); !series)
    return Problem{"series", series.error().message};
  if (spec.duration_ns < kSecond || spec.duration_ns > kMaxRequestDurationNs) {
    return Problem{"duration_ns", fmt::format("want 1s to {}, got {}", format_duration(kMaxRequestDurationNs),
                                              format_duration(spec.duration_ns))};
  }
  if (auto problem = range_problem("start_ns", spec.start_ns, 0, std::numeric_limits<int64_t>::max() / 2)) {
    return problem;
  }
  if (!spec.max_microusd_per_gpu_hour) return std::nullopt;
  return range_problem("max_microusd_per_gpu_hour", *spec.max_microusd_per_gpu_hour, 0, kMaxMoney);
}

const fleet::Series& series_named(const std::string& name) {
  auto series = fleet::find_series(name);
  TH_CHECK(series.has_value());
  return fleet::series_catalogue()[static_cast<size_t>(*series)];
}

}  // namespace

Status validate(const SliceSpec& spec) { return as_status(find_problem(spec)); }

Result<SliceSpec> parse_slice_spec(std::string_view yaml, std::string_view file) {
  TH_TRY(Config config, Config::parse(yaml, file, {"name", "gpus", "series", "time", "max_price"}));
  SliceSpec spec;
  TH_TRY(spec.name, config.string("name"));
  TH_TRY(spec.gpus, config.integer("gpus"));
  TH_TRY(spec.series, config.string("series"));
  if (!config.has("time")) return config.bad("time", "is missing: how long, such as 1h");
  TH_TRY(spec.duration_ns, config.duration_ns_or("time", 0));
  if (config.has("max_price")) {
    TH_TRY(spec.max_microusd_per_gpu_hour, config.money_or("max_price", 0));
  }
  TH_RETURN_IF_ERROR(as_status(find_problem(spec), config,
                               {{"duration_ns", "time"}, {"max_microusd_per_gpu_hour", "max_price"}}));
  return spec;
}

Result<SliceSpec> slice_spec_from_json(const Json& body) {
  TH_RETURN_IF_ERROR(
      check_fields(body, {"name", "gpus", "series", "duration_ns", "start_ns", "max_microusd_per_gpu_hour"}));
  SliceSpec spec;
  TH_TRY(spec.name, get_string(body, "name"));
  TH_TRY(spec.gpus, get_int(body, "gpus"));
  TH_TRY(spec.series, get_string(body, "series"));
  TH_TRY(spec.duration_ns, get_int(body, "duration_ns"));
  TH_TRY(spec.start_ns, get_int(body, "start_ns", 0));
  TH_TRY(spec.max_microusd_per_gpu_hour, optional_int(body, "max_microusd_per_gpu_hour"));
  TH_RETURN_IF_ERROR(validate(spec));
  return spec;
}

Json to_json(const SliceSpec& spec) {
  Json body = {
      {"name", spec.name}, {"gpus", spec.gpus}, {"series", spec.series}, {"duration_ns", spec.duration_ns}};
  if (spec.start_ns != 0) body["start_ns"] = spec.start_ns;
  if (spec.max_microusd_per_gpu_hour) body["max_microusd_per_gpu_hour"] = *spec.max_microusd_per_gpu_hour;
  return body;
}

int64_t whole_host_gpus(int64_t gpus, const std::string& series) {
  int64_t per_host = series_named(series).gpus_per_host;
  return (gpus + per_host - 1) / per_host * per_host;
}

Status admit(const SliceSpec& spec, const Quota& quota, const Usage& usage) {
  int64_t gpus = whole_host_gpus(spec.gpus, spec.series);
  if (quota.max_gpus && (usage.gpus > *quota.max_gpus || gpus > *quota.max_gpus - usage.gpus)) {
    return fail(Code::kResourceExhausted,
                fmt::format("quota: '{}' wants {} GPUs beside {} in use, and the quota is {} at once",
                            spec.name, gpus, usage.gpus, *quota.max_gpus));
  }
  int64_t cost = cost_microusd(gpus, spec.duration_ns, series_named(spec.series).microusd_per_gpu_hour);
  if (quota.budget_microusd && (usage.committed_microusd > *quota.budget_microusd ||
                                cost > *quota.budget_microusd - usage.committed_microusd)) {
    return fail(Code::kResourceExhausted,
                fmt::format("budget: '{}' would cost {} beside {} spent or promised, and the budget is {}",
                            spec.name, format_money(cost), format_money(usage.committed_microusd),
                            format_money(*quota.budget_microusd)));
  }
  return {};
}

}  // namespace th::request
