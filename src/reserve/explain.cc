#include "reserve/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
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
    const HostState* state = find_state(query.root, host);
    if ((ask.series >= 0 && fleet.host(host).series != ask.series) ||
        (state == nullptr && query.root.is_slice))
      return;
    int64_t gpus = state == nullptr ? fleet.host(host).gpus : std::popcount(state->exists);
    exist += gpus;
    if (state == nullptr) return;
    if (state->out_of_use) {
      drained += gpus;
      drained_hosts.push_back(fmt::format("{}: {}", fleet.host(host).id, *state->out_of_use));
      return;
    }
    GpuMask taken = 0;
    for (const Busy& entry : state->busy) {
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

std::string count_gpus(int64_t gpus) { return fmt::format("{} GPU{}", gpus, gpus == 1 ? "" : "s"); }

std::string describe(const Ask& ask) {
  std::string text = count_gpus(ask.gpus);
  if (!ask.request.series.empty()) text += " of " + ask.request.series;
  if (ask.gpus != ask.request.gpus) text += fmt::format(" ({} asked, whole hosts given)", ask.request.gpus);
  return text + " for " + format_duration(ask.request.duration_ns);
}

std::string explain_place(const Ask& ask, const Plan& plan, bool clear) {
  const Fleet& fleet = ask.snapshot.fleet();
  std::vector<std::string> leaves, racks;
  for (size_t begin = 0, end = 0; begin < plan.hosts.size(); begin = end) {
    const fleet::Leaf& leaf = fleet.leaf(fleet.host(plan.hosts[begin].host).leaf);
    int64_t gpus = 0;
    for (; end < plan.hosts.size() && plan.hosts[end].host < leaf.first_host + leaf.num_hosts; ++end) {
      gpus += std::popcount(plan.hosts[end].gpus);
    }
    leaves.push_back(fmt::format("{} ({})", fleet.switches()[static_cast<size_t>(leaf.switch_index)].id,
                                 count_gpus(gpus)));
  }
  Query query = ask.query();
  query.start_ns = plan.start_ns;
  query.end_ns = plan.end_ns;
  for (size_t i = 0; !ask.snapshot.is_slice() && i < plan.hosts.size() && racks.size() <= kListed;) {
    RackIndex rack = fleet.host(plan.hosts[i].host).rack;
    int64_t watts = peak_power_w(query, *find_page(query.root, fleet.rack(rack).leaf), rack);
    for (; i < plan.hosts.size() && fleet.host(plan.hosts[i].host).rack == rack; ++i) {
      watts += fleet.series_of(plan.hosts[i].host).host_full_w();
    }
    racks.push_back(
        fmt::format("{} {} of {} W", fleet.rack(rack).id, watts, fleet.rack(rack).power_budget_w));
  }
  std::string text =
      fmt::format("{} host{} on leaf switch{} {}: ", plan.hosts.size(), plan.hosts.size() == 1 ? "" : "s",
                  leaves.size() == 1 ? "" : "es", list_some(leaves));
  if (leaves.size() > 1) {
    text += "no single leaf has room, and these are the fewest that do";
  } else if (clear) {
    text += "one leaf holds the gang, and no leaf of idle hosts fits it tighter";
  } else {
    text += "one leaf holds the gang, and none that does has fewer GPUs left over";
  }
  if (!racks.empty())
    text += fmt::format("; at most {}{}", racks.size() == 1 ? "rack " : "racks ", list_some(racks));
  if (ask.gpus != ask.request.gpus) {
    text += fmt::format("; {} asked, and whole hosts of {} come to {}", count_gpus(ask.request.gpus),
                        ask.request.series, ask.gpus);
  }
  return text;
}

Obstacles find_obstacles(const Ask& ask) {
  Query query = ask.query();
  std::vector<int64_t> rooms = site_rooms(query);
  auto site = static_cast<size_t>(std::ranges::max_element(rooms) - rooms.begin());
  int64_t missing = ask.gpus - rooms[site];
  auto without = [&](bool Query::*obstacle) {
    Query relaxed = query;
    relaxed.*obstacle = true;
    return std::min(missing, site_rooms(relaxed)[site] - rooms[site]);
  };
  const std::array<std::pair<Reason, int64_t>, 3> gains = {
      {{Reason::kDrained, without(&Query::ignore_drains)},
       {Reason::kPower, without(&Query::ignore_power)},
       {Reason::kBusy, without(&Query::ignore_claims)}}};
  Obstacles found;
  found.reason = std::ranges::max_element(gains, {}, &std::pair<Reason, int64_t>::second)->first;

  Census census;
  const Fleet& fleet = ask.snapshot.fleet();
  for (size_t host = 0; host < fleet.hosts().size(); ++host) {
    if (static_cast<size_t>(fleet.rack(fleet.hosts()[host].rack).site) == site) {
      census.add(ask, static_cast<HostIndex>(host));
    }
  }
  std::vector<std::string> parts = {fmt::format("{} free", rooms[site])};
  if (census.busy > 0) {
    parts.push_back(fmt::format("{} taken ({}) until {}", census.busy,
                                list_some({census.claims.begin(), census.claims.end()}),
                                format_time(census.free_from_ns)));
  }
  if (census.drained > 0) {
    parts.push_back(fmt::format("{} out of use ({})", census.drained, list_some(census.drained_hosts)));
  }
  int64_t over_power = census.exist - census.busy - census.drained - rooms[site];
  if (over_power > 0) parts.push_back(fmt::format("{} without rack power", over_power));
  found.text = fmt::format(
      "{} cannot start at {}: of {} {}, {}", describe(ask), format_time(ask.start_ns), census.exist,
      ask.snapshot.is_slice() ? "in the slice" : "in site " + fleet.sites()[site].id, join(parts, ", "));
  return found;
}

}  // namespace th::reserve::detail
