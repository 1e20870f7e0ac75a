#include "reserve/reserve.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "reserve/changes.h"
#include "reserve/make_plan.h"
#include "reserve/place.h"

namespace th::reserve {
namespace {

using detail::Ask;
using detail::Query;
using Decision = tl::expected<Plan, Refusal>;

constexpr int64_t kMaxStartNs = std::numeric_limits<int64_t>::max() / 2;

tl::unexpected<Refusal> refuse(Reason reason, std::string text) {
  Refusal refusal;
  refusal.reason = reason;
  refusal.text = std::move(text);
  return tl::unexpected<Refusal>(std::move(refusal));
}

const fleet::Series& series_at(fleet::SeriesIndex index) {
  return fleet::series_catalogue()[static_cast<size_t>(index)];
}

/// Adds `change` when the request, with it, gets a plan.
void add_if_it_works(const Snapshot& snapshot, const Policy& policy, int64_t now_ns, Request request,
                     Change change, Refusal& refusal) {
  if (!policy.find_changes) return;
  if (change.gpus) request.gpus = *change.gpus;
  if (change.duration_ns) request.duration_ns = *change.duration_ns;
  if (change.series) request.series = *change.series;
  if (change.max_switches) request.max_switches = *change.max_switches;
  if (change.segment) request.segment = *change.segment;
  if (change.max_microusd_per_gpu_hour) request.max_microusd_per_gpu_hour = change.max_microusd_per_gpu_hour;
  Policy changed = policy;
  changed.find_changes = false;
  changed.split_groups |= change.split_groups;
  if (change.raise_quota_gpus) changed.quota.max_gpus = change.raise_quota_gpus;
  if (change.raise_budget_microusd) changed.quota.budget_microusd = change.raise_budget_microusd;
  if (decide(snapshot, request, changed, now_ns)) refusal.changes.push_back(std::move(change));
}

/// GPUs of the series (-1: any) that exist here, the most in one site.
int64_t gpus_in_one_site(const Snapshot& snapshot, fleet::SeriesIndex series) {
  const Fleet& fleet = snapshot.fleet();
  int64_t most = 0;
  if (snapshot.is_slice()) {
    Query query{snapshot.root(), series};
    query.ignore_claims = query.ignore_drains = true;
    return detail::most_units(query, {.units = 1});
  }
  for (size_t site = 0; site < fleet.sites().size(); ++site) {
    most = std::max(most, fleet.num_gpus(static_cast<fleet::SiteIndex>(site), series));
  }
  return most;
}

std::vector<std::string> series_here(const Snapshot& snapshot) {
  std::vector<std::string> names;
  for (size_t i = 0; i < fleet::series_catalogue().size(); ++i) {
    auto series = static_cast<fleet::SeriesIndex>(i);
    if (gpus_in_one_site(snapshot, series) > 0) names.emplace_back(series_at(series).name);
  }
  return names;
}

tl::unexpected<Refusal> refuse_series(const Snapshot& snapshot, const Request& request, const Policy& policy,
                                      int64_t now_ns) {
  std::vector<std::string> names = series_here(snapshot);
  std::string text =
      fmt::format("there is no series '{}' here{}", request.series, did_you_mean(request.series, names));
  auto refusal = refuse(Reason::kSeriesUnknown, text + "; there is " + join(names, ", "));
  for (const std::string& name : names) {
    Change change;
    change.series = name;
    change.size_ppm = 1'000'000;
    change.text = "ask for series " + name;
    add_if_it_works(snapshot, policy, now_ns, request, std::move(change), refusal.value());
  }
  return refusal;
}

/// Errors: kInvalid, kSeriesUnknown.
tl::expected<Ask, Refusal> check(const Snapshot& snapshot, const Request& request, const Policy& policy,
                                 int64_t now_ns) {
  if (request.gpus < 1 || request.gpus > request::kMaxRequestGpus) {
    return refuse(Reason::kInvalid,
                  fmt::format("gpus: want 1 to {}, got {}", request::kMaxRequestGpus, request.gpus));
  }
  if (request.duration_ns < 1 || request.duration_ns > request::kMaxRequestDurationNs) {
    return refuse(Reason::kInvalid, fmt::format("the time must be more than none and at most {}",
                                                format_duration(request::kMaxRequestDurationNs)));
  }
  if (now_ns < 0 || std::max(now_ns, request.start_ns) > kMaxStartNs) {
    return refuse(Reason::kInvalid, "the start is too far away");
  }
  Ask ask{snapshot, request, policy, -1, request.gpus, std::max(now_ns, request.start_ns)};
  if (snapshot.is_slice() && request.series.empty()) return ask;
  auto series = fleet::find_series(request.series);
  if (!series) return refuse_series(snapshot, request, policy, now_ns);
  ask.series = *series;
  if (gpus_in_one_site(snapshot, ask.series) == 0) return refuse_series(snapshot, request, policy, now_ns);
  ask.unit_gpus = series_at(*series).gpus_per_host;
  return ask;
}

/// Rounds up to whole units, and adds the spares. Errors: kInvalid.
tl::expected<Ask, Refusal> shape(Ask ask) {
  const Request& request = ask.request;
  auto invalid = [](std::string text) { return refuse(Reason::kInvalid, std::move(text)); };
  if (request.max_switches < 0 || request.segment < 0 || request.spares < 0 || request.gpus_per_host < 0 ||
      std::max({request.segment, request.spares, request.gpus_per_host}) > request::kMaxRequestGpus) {
    return invalid(
        "switches, segment, spares and GPUs a host must not be negative, nor more than there can be");
  }
  if (ask.snapshot.is_slice()) {
    ask.unit_gpus = std::max(1, request.gpus_per_host);
    if (request.gpus_per_host == 0 && request.segment + request.spares > 0) {
      return invalid("in a slice, segments and spares need to know how many GPUs of each host are meant");
    }
    if (request.gpus % ask.unit_gpus != 0) {
      return invalid(fmt::format("gpus: {} do not divide into hosts of {}", request.gpus, ask.unit_gpus));
    }
  }
  int64_t units = (request.gpus + ask.unit_gpus - 1) / ask.unit_gpus;
  if (request.segment > 0) {
    if (units % request.segment != 0) {
      return invalid(fmt::format("segment: {} hosts do not divide into blocks of {}; ask for {} or {} hosts",
                                 units, request.segment,
                                 std::max<int64_t>(1, units / request.segment) * request.segment,
                                 (units / request.segment + 1) * request.segment));
    }
    ask.block = request.segment + request.spares;
    units = units / request.segment * ask.block;
  } else {
    units += request.spares;
  }
  ask.gpus = units * ask.unit_gpus;
  return ask;
}

/// Units that one placement group holds, where a gang may not have more than one.
int64_t group_limit(const Ask& ask) {
  int64_t limit = ask.policy.max_group_hosts;
  return limit == 0 || ask.policy.split_groups ? INT64_MAX : limit - limit % ask.block;
}

tl::unexpected<Refusal> refuse_size(const Ask& ask, int64_t exist, int64_t now_ns) {
  const Fleet& fleet = ask.snapshot.fleet();
  int64_t units = detail::most_units(ask.query(), ask.demand()), room = ask.gpus_without_spares(units);
  std::string where = ask.snapshot.is_slice() ? "the slice" : fmt::format("fleet '{}'", fleet.name());
  std::string most = fleet.sites().size() > 1 && !ask.snapshot.is_slice() ? " in one site" : "";
  auto refusal = refuse(Reason::kNotEnoughGpus,
                        fmt::format("{} can never start: {} has {}{}, of which {} free then",
                                    detail::describe(ask), where, counted(exist, "GPU"), most, room));
  if (int64_t fewer = ask.gpus_without_spares(std::min(units, group_limit(ask))); fewer > 0) {
    Change change;
    change.gpus = fewer;
    change.size_ppm = detail::part_ppm(ask.gpus - fewer, ask.gpus);
    change.text = "ask for " + counted(fewer, "GPU");
    add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  }
  return refusal;
}

tl::unexpected<Refusal> refuse_price(const Ask& ask, int64_t now_ns) {
  int64_t price = series_at(ask.series).microusd_per_gpu_hour, most = *ask.request.max_microusd_per_gpu_hour;
  auto refusal =
      refuse(Reason::kPrice, fmt::format("{} costs {} a GPU-hour, and the request allows {}",
                                         ask.request.series, format_money(price), format_money(most)));
  Change change;
  change.max_microusd_per_gpu_hour = price;
  change.size_ppm = detail::part_ppm(price - most, price);
  change.text = fmt::format("allow {} a GPU-hour", format_money(price));
  add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  return refusal;
}

tl::unexpected<Refusal> refuse_quota(const Ask& ask, std::string text, int64_t now_ns) {
  auto refusal = refuse(Reason::kQuota, std::move(text));
  int64_t per_host = series_at(ask.series).gpus_per_host;
  int64_t left =
      std::max<int64_t>(0, *ask.policy.quota.max_gpus - ask.policy.usage.gpus) / per_host * per_host;
  int64_t size_ppm = detail::part_ppm(ask.gpus - left, ask.gpus);
  if (left > 0) {
    Change change;
    change.gpus = left;
    change.size_ppm = size_ppm;
    change.text = "ask for " + counted(left, "GPU");
    add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  }
  Change change;
  change.raise_quota_gpus = ask.policy.usage.gpus + ask.gpus;
  change.size_ppm = size_ppm;
  change.text = fmt::format("raise the quota to {}", counted(*change.raise_quota_gpus, "GPU"));
  add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  return refusal;
}

tl::unexpected<Refusal> refuse_budget(const Ask& ask, std::string text, int64_t now_ns) {
  auto refusal = refuse(Reason::kBudget, std::move(text));
  int64_t rate = series_at(ask.series).microusd_per_gpu_hour;
  int64_t left = *ask.policy.quota.budget_microusd - ask.policy.usage.committed_microusd;
  int64_t cost = cost_microusd(ask.gpus, ask.request.duration_ns, rate);
  int64_t size_ppm = detail::part_ppm(cost - std::max<int64_t>(0, left), cost);
  auto seconds = detail::mul_div(std::max<int64_t>(0, left), 3600, ask.gpus * rate);
  if (seconds >= 60) seconds -= seconds % 60;
  if (seconds > 0) {
    Change change;
    change.duration_ns = seconds * kSecond;
    change.size_ppm = size_ppm;
    change.text = "shorten to " + format_duration(*change.duration_ns);
    add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  }
  Change change;
  change.raise_budget_microusd = ask.policy.usage.committed_microusd + cost;
  change.size_ppm = size_ppm;
  change.text = fmt::format("raise the budget to {}", format_money(*change.raise_budget_microusd));
  add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  return refusal;
}

/// A slice's jobs are paid and admitted with the slice. Errors: kPrice, kQuota, kBudget.
tl::expected<void, Refusal> check_terms(const Ask& ask, int64_t now_ns) {
  if (ask.snapshot.is_slice()) return {};
  const Request& request = ask.request;
  auto most = request.max_microusd_per_gpu_hour;
  if (most && *most < series_at(ask.series).microusd_per_gpu_hour) return refuse_price(ask, now_ns);
  request::SliceSpec spec{request.name,        ask.gpus,         request.series,
                          request.duration_ns, request.start_ns, most};
  const request::Quota& quota = ask.policy.quota;
  if (auto status = request::admit(spec, {quota.max_gpus, std::nullopt}, ask.policy.usage); !status) {
    return refuse_quota(ask, status.error().message, now_ns);
  }
  if (auto status = request::admit(spec, {std::nullopt, quota.budget_microusd}, ask.policy.usage); !status) {
    return refuse_budget(ask, status.error().message, now_ns);
  }
  return {};
}

tl::unexpected<Refusal> refuse_window(const Ask& ask, int64_t now_ns) {
  auto refusal = refuse(Reason::kWindow,
                        fmt::format("{} from {} would end after {}, when {} ends", detail::describe(ask),
                                    format_time(ask.start_ns), format_time(*ask.policy.end_by_ns),
                                    ask.snapshot.is_slice() ? "the slice" : "what may be planned"));
  int64_t left = *ask.policy.end_by_ns - ask.start_ns;
  if (left > kSecond) left -= left % kSecond;
  if (left > 0) {
    Change change;
    change.duration_ns = left;
    change.size_ppm = detail::part_ppm(ask.request.duration_ns - left, ask.request.duration_ns);
    change.text = "shorten to " + format_duration(left);
    add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(change), refusal.value());
  }
  return refusal;
}

std::optional<Plan> plan_at(const Ask& ask) {
  auto hosts = detail::place(ask.query(), ask.demand());
  if (hosts.empty()) return std::nullopt;
  return detail::make_plan(ask, std::move(hosts));
}

tl::unexpected<Refusal> refuse_group(const Ask& ask, int64_t now_ns) {
  int64_t limit = ask.policy.max_group_hosts;
  auto refusal =
      refuse(Reason::kTopology, fmt::format("{} are {} VMs, and one placement group of the cloud holds {}",
                                            detail::describe(ask), ask.units(), limit));
  Change split;
  split.split_groups = true;
  split.size_ppm = detail::part_ppm(ask.units() - limit, ask.units());
  split.text = fmt::format("allow {} placement groups", (ask.units() + limit - 1) / limit);
  Change fewer;
  fewer.gpus = ask.gpus_without_spares(group_limit(ask));
  fewer.size_ppm = split.size_ppm;
  fewer.text = "ask for " + counted(*fewer.gpus, "GPU");
  add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(split), refusal.value());
  if (*fewer.gpus > 0)
    add_if_it_works(ask.snapshot, ask.policy, now_ns, ask.request, std::move(fewer), refusal.value());
  return refusal;
}

tl::unexpected<Refusal> refuse_now(const Ask& ask) {
  detail::Obstacles obstacles = detail::find_obstacles(ask);
  auto refusal = refuse(obstacles.reason, std::move(obstacles.text));
  int64_t duration = ask.request.duration_ns;
  int64_t last = ask.policy.end_by_ns ? *ask.policy.end_by_ns - duration
                                      : std::numeric_limits<int64_t>::max() - duration;
  auto start = detail::earliest_start(ask.query(), ask.demand(), duration, ask.start_ns, last);
  if (start) {
    Ask later = ask;
    later.start_ns = *start;
    refusal.value().later = plan_at(later);
  }
  if (ask.policy.find_changes) refusal.value().changes = detail::find_changes(ask);
  return refusal;
}

}  // namespace

Request request_of(const request::SliceSpec& spec) {
  Request request{spec.name,        spec.gpus,     spec.series,
                  spec.duration_ns, spec.start_ns, spec.max_microusd_per_gpu_hour};
  request.layout = spec.spread ? Layout::kSpread : Layout::kPack;
  request.max_switches = static_cast<int32_t>(spec.max_switches);
  request.segment = static_cast<int32_t>(spec.segment);
  request.spares = static_cast<int32_t>(spec.spares);
  auto series = fleet::find_series(spec.series);
  if (spec.segment > 0 && series) {  // spread over the blocks, each as many
    int64_t per_host = series_at(*series).gpus_per_host;
    int64_t blocks = std::max<int64_t>(1, (spec.gpus + per_host - 1) / per_host / spec.segment);
    request.spares = static_cast<int32_t>((spec.spares + blocks - 1) / blocks);
  }
  return request;
}

Claim claim_of(const Plan& plan, std::string id) {
  return {std::move(id), plan.start_ns, plan.end_ns, plan.hosts};
}

std::string_view reason_name(Reason reason) {
  switch (reason) {
    case Reason::kInvalid:
      return "invalid";
    case Reason::kSeriesUnknown:
      return "series_unknown";
    case Reason::kNotEnoughGpus:
      return "not_enough_gpus";
    case Reason::kQuota:
      return "quota";
    case Reason::kBudget:
      return "budget";
    case Reason::kPrice:
      return "price";
    case Reason::kWindow:
      return "window";
    case Reason::kDrained:
      return "drained";
    case Reason::kPower:
      return "power";
    case Reason::kBusy:
      return "busy";
    case Reason::kTopology:
      return "topology";
    case Reason::kPriority:
      return "priority";
    case Reason::kReservation:
      return "reservation";
    case Reason::kLimit:
      return "limit";
    case Reason::kBegin:
      return "begin";
    case Reason::kPreempting:
      return "preempting";
  }
  return "invalid";
}

Error Refusal::error() const {
  Code code = Code::kFailedPrecondition;
  if (reason == Reason::kInvalid || reason == Reason::kSeriesUnknown) code = Code::kInvalidArgument;
  if (reason == Reason::kNotEnoughGpus || (reason == Reason::kTopology && !later))
    code = Code::kUnsatisfiable;
  if (reason == Reason::kQuota || reason == Reason::kBudget || reason == Reason::kLimit)
    code = Code::kResourceExhausted;
  std::string message = text;
  if (later) message += fmt::format("; earliest start: {}", format_time(later->start_ns));
  if (!changes.empty()) message += fmt::format("; to start then: {}", changes.front().text);
  return {code, std::move(message)};
}

Decision decide(const Snapshot& snapshot, const Request& request, const Policy& policy, int64_t now_ns) {
  auto ask = check(snapshot, request, policy, now_ns).and_then(shape);
  if (!ask) return tl::unexpected<Refusal>(std::move(ask.error()));
  int64_t exist = gpus_in_one_site(snapshot, ask->series);
  if (ask->gpus > exist) return refuse_size(*ask, exist, now_ns);
  if (auto terms = check_terms(*ask, now_ns); !terms)
    return tl::unexpected<Refusal>(std::move(terms.error()));
  if (policy.end_by_ns && *policy.end_by_ns - request.duration_ns < ask->start_ns)
    return refuse_window(*ask, now_ns);
  if (ask->units() > group_limit(*ask)) return refuse_group(*ask, now_ns);
  if (auto plan = plan_at(*ask)) return *std::move(plan);
  return refuse_now(*ask);
}

std::vector<Decision> plan_queue(const Snapshot& snapshot, std::span<const Request> requests,
                                 const Policy& policy, int64_t now_ns) {
  std::vector<Decision> decisions;
  Snapshot reserved = snapshot;
  for (size_t i = 0; i < requests.size(); ++i) {
    Decision decision = decide(reserved, requests[i], policy, now_ns);
    const Plan* plan = decision ? &*decision : decision.error().later ? &*decision.error().later : nullptr;
    if (plan != nullptr) {
      auto next = reserved.with_claim(claim_of(*plan, requests[i].name));
      TH_CHECK(next.has_value());
      reserved = *std::move(next);
    }
    decisions.push_back(std::move(decision));
  }
  return decisions;
}

}  // namespace th::reserve
