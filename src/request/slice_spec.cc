#include "request/slice_spec.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/config.h"
#include "base/units.h"
#include "fleet/series.h"
#include "request/fields.h"
#include "request/job_options.h"

namespace th::request {
namespace {

constexpr int64_t kMaxMoney = int64_t{1'000'000} * 1'000'000;  // a million dollars for one GPU-hour

struct IntField {
  const char* name;
  int64_t SliceSpec::*member;
  int64_t min, max;
};
constexpr int64_t kMaxTimeNs = std::numeric_limits<int64_t>::max() / 2;
constexpr IntField kInts[] = {{"gpus", &SliceSpec::gpus, 1, kMaxRequestGpus},
                              {"start_ns", &SliceSpec::start_ns, 0, kMaxTimeNs},
                              {"min_gpus", &SliceSpec::min_gpus, 0, kMaxRequestGpus},
                              {"spares", &SliceSpec::spares, 0, 10'000},
                              {"max_switches", &SliceSpec::max_switches, 0, 1'000'000},
                              {"segment", &SliceSpec::segment, 0, kMaxRequestGpus},
                              {"deadline_ns", &SliceSpec::deadline_ns, 0, kMaxTimeNs},
                              {"idle_ns", &SliceSpec::idle_ns, 0, kMaxRequestDurationNs}};
struct ListField {
  const char* name;
  std::vector<std::string> SliceSpec::*member;
};
constexpr ListField kLists[] = {{"or_series", &SliceSpec::or_series}, {"zones", &SliceSpec::zones}};
constexpr size_t kMaxAlternatives = 16;

struct MoneyField {
  const char* name;
  std::optional<int64_t> SliceSpec::*member;
  int64_t max;
};
constexpr MoneyField kMoney[] = {
    {"max_microusd_per_gpu_hour", &SliceSpec::max_microusd_per_gpu_hour, kMaxMoney},
    {"budget_microusd", &SliceSpec::budget_microusd, kMaxTimeNs}};

std::optional<Problem> find_alternative_problem(const SliceSpec& spec) {
  for (const ListField& field : kLists) {
    const auto& values = spec.*field.member;
    if (values.size() > kMaxAlternatives)
      return Problem{field.name, fmt::format("want at most {}, got {}", kMaxAlternatives, values.size())};
    if (std::set<std::string>(values.begin(), values.end()).size() < values.size())
      return Problem{field.name, "names one of them twice"};
  }
  for (const std::string& name : spec.or_series) {
    if (auto series = fleet::find_series(name); !series) return Problem{"or_series", series.error().message};
    if (name == spec.series) return Problem{"or_series", name + " is its series already"};
  }
  for (const std::string& zone : spec.zones) {
    if (auto problem = name_problem("zones", zone)) return problem;
  }
  if (!spec.account.empty()) {
    if (auto problem = name_problem("account", spec.account)) return problem;
  }
  if (spec.stack.empty()) return std::nullopt;
  auto problem = stack_name_problem(spec.stack);
  return problem ? std::optional(Problem{"stack", *std::move(problem)}) : std::nullopt;
}

std::optional<Problem> find_problem(const SliceSpec& spec) {
  if (auto problem = name_problem("name", spec.name)) return problem;
  for (const IntField& field : kInts) {
    if (auto problem = range_problem(field.name, spec.*field.member, field.min, field.max)) return problem;
  }
  if (auto series = fleet::find_series(spec.series); !series)
    return Problem{"series", series.error().message};
  if (spec.duration_ns < kSecond || spec.duration_ns > kMaxRequestDurationNs) {
    return Problem{"duration_ns", fmt::format("want 1s to {}, got {}", format_duration(kMaxRequestDurationNs),
                                              format_duration(spec.duration_ns))};
  }
  for (const MoneyField& field : kMoney) {
    const auto& value = spec.*field.member;
    if (!value) continue;
    if (auto problem = range_problem(field.name, *value, 0, field.max)) return problem;
  }
  if (spec.min_gpus > spec.gpus) {
    return Problem{"min_gpus", fmt::format("{} is over gpus, {}", spec.min_gpus, spec.gpus)};
  }
  if (spec.deadline_ns != 0 && spec.deadline_ns - spec.start_ns < spec.duration_ns) {
    return Problem{"deadline_ns", fmt::format("{} of time do not fit between start and deadline",
                                              format_duration(spec.duration_ns))};
  }
  return find_alternative_problem(spec);
}

const fleet::Series& series_named(const std::string& name) {
  auto series = fleet::find_series(name);
  TH_CHECK(series.has_value());
  return fleet::series_catalogue()[static_cast<size_t>(*series)];
}

/// Hosts of the series as GPUs. A series that is not in the catalogue is told by find_problem.
std::optional<Problem> take_nodes(std::optional<int64_t> nodes, std::optional<int64_t> min_nodes,
                                  SliceSpec& spec) {
  if (!fleet::find_series(spec.series)) {
    if (nodes) spec.gpus = 1;
    return std::nullopt;
  }
  const int64_t per_host = series_named(spec.series).gpus_per_host;
  if (nodes) {
    if (auto problem = range_problem("nodes", *nodes, 1, kMaxRequestGpus / per_host)) return problem;
    spec.gpus = *nodes * per_host;
  }
  if (min_nodes) {
    if (spec.min_gpus != 0) return Problem{"min_nodes", "stands beside min_gpus; give one of them"};
    if (auto problem = range_problem("min_nodes", *min_nodes, 1, kMaxRequestGpus / per_host)) return problem;
    spec.min_gpus = *min_nodes * per_host;
  }
  return std::nullopt;
}

Status read_size(const Config& config, SliceSpec& spec) {
  std::optional<int64_t> nodes, min_nodes;
  if (config.has("nodes")) {
    TH_TRY(nodes, config.integer("nodes"));
    if (config.has("gpus")) return config.bad("nodes", "stands beside gpus; give one of them");
  } else {
    TH_TRY(spec.gpus, config.integer("gpus"));
  }
  if (config.has("min_nodes")) {
    TH_TRY(min_nodes, config.integer("min_nodes"));
  }
  TH_TRY(spec.min_gpus, config.integer_or("min_gpus", 0));
  return as_status(take_nodes(nodes, min_nodes, spec), config, {});
}

Result<int64_t> moment_or(const Config& config, const char* key, int64_t now_ns) {
  if (!config.has(key)) return 0;
  TH_TRY(std::string text, config.string(key));
  auto moment = parse_moment(text, now_ns);
  if (!moment) return config.bad(key, moment.error().message);
  return *moment;
}

}  // namespace

Status validate(const SliceSpec& spec) { return as_status(find_problem(spec)); }

Result<SliceSpec> parse_slice_spec(std::string_view yaml, std::string_view file, int64_t now_ns) {
  TH_TRY(Config config,
         Config::parse(yaml, file,
                       {"name",      "gpus",   "nodes",  "series",    "time",     "max_price", "min_gpus",
                        "min_nodes", "start",  "spares", "spread",    "switches", "segment",   "spot",
                        "deadline",  "budget", "stack",  "or_series", "zones",    "idle",      "account"}));
  SliceSpec spec;
  TH_TRY(spec.name, config.string("name"));
  TH_TRY(spec.series, config.string("series"));
  TH_RETURN_IF_ERROR(read_size(config, spec));
  TH_TRY(spec.spares, config.integer_or("spares", 0));
  TH_TRY(spec.max_switches, config.integer_or("switches", 0));
  TH_TRY(spec.segment, config.integer_or("segment", 0));
  TH_TRY(spec.spread, config.boolean_or("spread", false));
  TH_TRY(spec.spot, config.boolean_or("spot", false));
  TH_TRY(spec.stack, config.string("stack", ""));
  TH_TRY(spec.account, config.string("account", ""));
  for (const ListField& field : kLists) {
    TH_TRY(spec.*field.member, config.strings(field.name));
  }
  TH_TRY(spec.idle_ns, config.duration_ns_or("idle", 0));
  TH_TRY(spec.start_ns, moment_or(config, "start", now_ns));
  TH_TRY(spec.deadline_ns, moment_or(config, "deadline", now_ns));
  if (config.has("budget")) {
    TH_TRY(spec.budget_microusd, config.money_or("budget", 0));
  }
  if (!config.has("time")) return config.bad("time", "is missing: how long, such as 1h");
  TH_TRY(spec.duration_ns, config.duration_ns_or("time", 0));
  if (config.has("max_price")) {
    TH_TRY(spec.max_microusd_per_gpu_hour, config.money_or("max_price", 0));
  }
  TH_RETURN_IF_ERROR(as_status(find_problem(spec), config,
                               {{"duration_ns", "time"},
                                {"max_microusd_per_gpu_hour", "max_price"},
                                {"budget_microusd", "budget"},
                                {"start_ns", "start"},
                                {"deadline_ns", "deadline"},
                                {"max_switches", "switches"},
                                {"idle_ns", "idle"}}));
  return spec;
}

Result<SliceSpec> slice_spec_from_json(const Json& body) {
  std::vector<const char*> known = {"name",   "series", "duration_ns", "nodes",  "min_nodes",
                                    "spread", "spot",   "stack",       "account"};
  for (const ListField& field : kLists) known.push_back(field.name);
  for (const IntField& field : kInts) known.push_back(field.name);
  for (const MoneyField& field : kMoney) known.push_back(field.name);
  TH_RETURN_IF_ERROR(check_fields(body, known));
  SliceSpec spec;
  TH_TRY(spec.name, get_string(body, "name"));
  TH_TRY(spec.series, get_string(body, "series"));
  TH_TRY(spec.duration_ns, get_int(body, "duration_ns"));
  TH_TRY(spec.stack, get_string(body, "stack", ""));
  TH_TRY(spec.account, get_string(body, "account", ""));
  for (const ListField& field : kLists) {
    TH_TRY(spec.*field.member, optional_strings(body, field.name));
  }
  TH_TRY(spec.spread, get_bool(body, "spread", false));
  TH_TRY(spec.spot, get_bool(body, "spot", false));
  for (const IntField& field : kInts) {
    TH_TRY(spec.*field.member, get_int(body, field.name, 0));
  }
  for (const MoneyField& field : kMoney) {
    TH_TRY(spec.*field.member, optional_int(body, field.name));
  }
  TH_TRY(auto nodes, optional_int(body, "nodes"));
  TH_TRY(auto min_nodes, optional_int(body, "min_nodes"));
  if (nodes.has_value() == body.contains("gpus")) {
    return fail(Code::kInvalidArgument, nodes ? "fields 'gpus' and 'nodes': give one of them"
                                              : "field 'gpus' is missing ('nodes' in its place is fine)");
  }
  TH_RETURN_IF_ERROR(as_status(take_nodes(nodes, min_nodes, spec)));
  TH_RETURN_IF_ERROR(validate(spec));
  return spec;
}

Json to_json(const SliceSpec& spec) {
  Json body = {
      {"name", spec.name}, {"gpus", spec.gpus}, {"series", spec.series}, {"duration_ns", spec.duration_ns}};
  for (const IntField& field : kInts) {
    if (spec.*field.member != 0) body[field.name] = spec.*field.member;
  }
  for (const MoneyField& field : kMoney) {
    if (spec.*field.member) body[field.name] = *(spec.*field.member);
  }
  if (spec.spread) body["spread"] = true;
  if (spec.spot) body["spot"] = true;
  if (!spec.stack.empty()) body["stack"] = spec.stack;
  if (!spec.account.empty()) body["account"] = spec.account;
  for (const ListField& field : kLists) {
    if (!(spec.*field.member).empty()) body[field.name] = spec.*field.member;
  }
  return body;
}

std::optional<Alternative> alternative(const SliceSpec& spec, int64_t attempt) {
  const auto zones = std::max<int64_t>(1, static_cast<int64_t>(spec.zones.size()));
  const int64_t series = attempt / zones;
  if (series > static_cast<int64_t>(spec.or_series.size())) return std::nullopt;
  Alternative out{series == 0 ? spec.series : spec.or_series[static_cast<size_t>(series - 1)], {}};
  if (!spec.zones.empty()) out.zone = spec.zones[static_cast<size_t>(attempt % zones)];
  return out;
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
