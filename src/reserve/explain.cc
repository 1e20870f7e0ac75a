#include "reserve/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <set>

#include "base/text.h"
#include "base/units.h"

namespace th::reserve::detail {
namespace {

constexpr size_t kListed = 4;

/// What becomes of the GPUs of one site in the window.
struct Census {
  int64_t exist = 0, drained = 0, busy = 0;
  std::vector<std::string> drained_hosts;
  std::set<std::string> claims;
  int64_t free_from_ns = 0;  // the last end of the claims in the way

  void add(const Ask& ask, HostIndex host) {
    const Query query = ask.query();
    const Fleet& fleet = ask.snapshot.fleet();
    HostView state = view_host(query.root, host);
    if ((ask.series >= 0 && fleet.host(host).series != ask.series) || state.exists == 0) return;
    int64_t gpus = std::popcount(state.exists);
    exist += gpus;
    if (state.is_out_of_use()) {
      drained += gpus;
      drained_hosts.push_back(fmt::format("{}: {}", fleet.host(host).id, *state.flaw->out_of_use));
      return;
    }
    GpuMask taken = 0;
    for (const Busy& entry : state.busy) {
      if (entry.start_ns >= query.end_ns || query.start_ns >= entry.end_ns) continue;
      taken |= entry.gpus;
      claims.insert(entry.claim->id);
      free_from_ns = std::max(free_from_ns, entry.end_ns);
    }
    if (taken != 0) busy += query.root.is_slice ? std::popcount(taken) : gpus;
  }
};

}  // namespace

int64_t mul_div(int64_t a, int64_t b, int64_t c) {
  __extension__ using Wide = __int128;
  return static_cast<int64_t>(static_cast<Wide>(a) * b / c);
}

int64_t part_ppm(int64_t part, int64_t whole) {
  return mul_div(part, 1'000'000, std::max<int64_t>(1, whole));
}

std::string list_some(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < std::min(parts.size(), kListed); ++i) text += (i == 0 ? "" : ", ") + parts[i];
  if (parts.size() > kListed) text += fmt::format(" and {} more", parts.size() - kListed);
  return text;
}

std::string describe(const Ask& ask) {
  std::string text = counted(ask.gpus, "GPU");
  if (!ask.request.series.empty()) text += " of " + ask.request.series;
  if (ask.request.spares > 0) {
    text += fmt::format(" ({} asked, with {} spare hosts{})", ask.request.gpus, ask.request.spares,
                        ask.request.segment > 0 ? " a segment" : "");
  } else if (ask.gpus != ask.request.gpus) {
    text += fmt::format(" ({} asked, whole hosts given)", ask.request.gpus);
  }
  return text + " for " + format_duration(ask.request.duration_ns);
}

int64_t Ask::gpus_without_spares(int64_t units) const {
  if (request.segment > 0) return units / block * request.segment * unit_gpus;
  return std::max<int64_t>(0, units - request.spares) * unit_gpus;
}

namespace {

/// "rack r1 140 of 150 W": those of the plan's hosts, the first few, and rows and sites that can run short.
std::vector<std::string> list_power(const Ask& ask, const Plan& plan) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query query = ask.query();
  query.start_ns = plan.start_ns;
  query.end_ns = plan.end_ns;
  std::vector<std::string> texts;
  std::map<fleet::RowIndex, int64_t> rows;  // watts that the plan adds
  int64_t added_w = 0;
  for (size_t i = 0; i < plan.hosts.size();) {
    RackIndex rack = fleet.host(plan.hosts[i].host).rack;
    int64_t watts = 0;
    for (; i < plan.hosts.size() && fleet.host(plan.hosts[i].host).rack == rack; ++i) {
      watts += fleet.series_of(plan.hosts[i].host).host_full_w();
    }
    added_w += watts;
    if (fleet.rack(rack).row >= 0 && fleet.row(fleet.rack(rack).row).can_run_short()) {
      rows[fleet.rack(rack).row] += watts;
    }
    if (texts.size() > kListed) continue;
    const RackIndex racks[] = {rack};
    watts += PowerProfile(query, racks).peak_w(plan.start_ns, plan.end_ns);
    texts.push_back(
        fmt::format("rack {} {} of {} W", fleet.rack(rack).id, watts, fleet.rack(rack).power_budget_w));
  }
  for (auto [row, watts] : rows) {
    texts.push_back(
        fmt::format("row {} {} W below its budget", fleet.row(row).id, row_left_w(query, row) - watts));
  }
  fleet::SiteIndex site = fleet.rack(fleet.host(plan.hosts[0].host).rack).site;
  if (site_can_run_short(query.root, site)) {
    texts.push_back(fmt::format("site {} {} W below its budget", fleet.sites()[static_cast<size_t>(site)].id,
                                site_left_w(query, site) - added_w));
  }
  return texts;
}

}  // namespace

std::string explain_place(const Ask& ask, const Plan& plan) {
  const Fleet& fleet = ask.snapshot.fleet();
  std::vector<std::string> leaves;
  int64_t lemons = 0;
  for (size_t begin = 0, end = 0; begin < plan.hosts.size(); begin = end) {
    const fleet::Leaf& leaf = fleet.leaf(fleet.host(plan.hosts[begin].host).leaf);
    int64_t gpus = 0;
    for (; end < plan.hosts.size() && plan.hosts[end].host < leaf.first_host + leaf.num_hosts; ++end) {
      gpus += std::popcount(plan.hosts[end].gpus);
    }
    leaves.push_back(fmt::format("{} ({})", fleet.switches()[static_cast<size_t>(leaf.switch_index)].id,
                                 counted(gpus, "GPU")));
  }
  if (ask.snapshot.root().num_lemons > 0) {
    for (const HostGpus& part : plan.hosts) {
      lemons += ask.snapshot.host_use(part.host, plan.start_ns).is_lemon;
    }
  }
  std::string text = fmt::format("{} on leaf switch{} {}: ", counted(std::ssize(plan.hosts), "host"),
                                 leaves.size() == 1 ? "" : "es", list_some(leaves));
  if (ask.request.layout == Layout::kSpread) {
    text += "spread, so that one leaf has as few of them as it can be, then one rack";
  } else if (leaves.size() > 1) {
    text += "no single leaf has room, and these are the fewest that do";
  } else {
    text += "one leaf holds the gang, and none that does has fewer GPUs left over";
  }
  if (lemons > 0) text += fmt::format("; {} of them fail often, and nothing else fits", lemons);
  if (!ask.snapshot.is_slice()) {
    std::vector<std::string> power = list_power(ask, plan);
    std::string first = power.front();
    for (std::string& entry : power) {
      if (power.size() > 1 && entry.starts_with("rack ")) entry.erase(0, 5);
    }
    text += power.size() == 1 ? "; at most " + first : "; at most racks " + list_some(power);
  }
  if (!plan.spares.empty()) text += fmt::format("; {} held back as spares", plan.spares.size());
  if (plan.groups.size() > 1) text += fmt::format("; in {} placement groups", plan.groups.size());
  if (ask.gpus != ask.request.gpus && plan.spares.empty()) {
    text += fmt::format("; {} asked, and whole hosts of {} come to {}", counted(ask.request.gpus, "GPU"),
                        ask.request.series, ask.gpus);
  }
  return text;
}

Obstacles find_obstacles(const Ask& ask) {
  Query query = ask.query();
  Demand demand = ask.demand();
  std::vector<int64_t> rooms = most_units_by_site(query, demand);
  auto site = static_cast<size_t>(std::ranges::max_element(rooms) - rooms.begin());
  int64_t missing = demand.units - rooms[site];
  auto without = [&](bool Query::*obstacle) {
    Query relaxed = query;
    relaxed.*obstacle = true;
    return std::min(missing, most_units_by_site(relaxed, demand)[site] - rooms[site]);
  };
  Demand anyhow{demand.units, 1, SIZE_MAX, Layout::kPack};
  int64_t free = most_units_by_site(query, anyhow)[site];
  const std::array<std::pair<Reason, int64_t>, 4> gains = {
      {{Reason::kTopology, std::min(missing, free - rooms[site])},
       {Reason::kDrained, without(&Query::ignore_drains)},
       {Reason::kPower, without(&Query::ignore_power)},
       {Reason::kBusy, without(&Query::ignore_claims)}}};
  Obstacles found;
  auto most_gain = std::ranges::max_element(gains, {}, &std::pair<Reason, int64_t>::second);
  found.reason = most_gain->second > 0 ? most_gain->first : Reason::kBusy;

  Census census;
  const Fleet& fleet = ask.snapshot.fleet();
  for (size_t host = 0; host < fleet.hosts().size(); ++host) {
    if (static_cast<size_t>(fleet.rack(fleet.hosts()[host].rack).site) == site) {
      census.add(ask, static_cast<HostIndex>(host));
    }
  }
  free *= ask.unit_gpus;
  std::vector<std::string> parts = {fmt::format("{} free", free)};
  if (census.busy > 0) {
    parts.push_back(fmt::format("{} taken ({}) until {}", census.busy,
                                list_some({census.claims.begin(), census.claims.end()}),
                                format_time(census.free_from_ns)));
  }
  if (census.drained > 0) {
    parts.push_back(fmt::format("{} out of use ({})", census.drained, list_some(census.drained_hosts)));
  }
  int64_t over_power = census.exist - census.busy - census.drained - free;
  if (over_power > 0 && !ask.snapshot.is_slice()) {
    bool only_racks =
        fleet.rows().empty() && !site_can_run_short(query.root, static_cast<fleet::SiteIndex>(site));
    parts.push_back(fmt::format("{} without {}power", over_power, only_racks ? "rack " : ""));
  }
  if (rooms[site] * ask.unit_gpus < free) {
    std::string limits;
    if (ask.request.max_switches > 0) limits = fmt::format(" on {} leaf switches", ask.request.max_switches);
    if (ask.request.segment > 0) limits += fmt::format(" in segments of {} hosts", ask.request.segment);
    parts.push_back(fmt::format("at most {} of them{}", rooms[site] * ask.unit_gpus, limits));
  }
  found.text = fmt::format(
      "{} cannot start at {}: of {} {}, {}", describe(ask), format_time(ask.start_ns), census.exist,
      ask.snapshot.is_slice() ? "in the slice" : "in site " + fleet.sites()[site].id, join(parts, ", "));
  return found;
}

}  // namespace th::reserve::detail
