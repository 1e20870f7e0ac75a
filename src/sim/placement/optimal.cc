#include "sim/placement/optimal.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <vector>

#include "base/env.h"
#include "reserve/objective.h"
#include "sim/placement/load.h"

namespace th::sim {
namespace {

using fleet::Fleet;
using reserve::Layout;
using reserve::Request;
using reserve::Snapshot;

constexpr int64_t kHorizon = 24;  // nanoseconds: every instant is looked at
constexpr int32_t kMaxHosts = 13;

struct Case {
  std::shared_ptr<const Fleet> fleet;
  std::vector<reserve::Claim> claims;
  std::vector<bool> drained, lemon;              // by host
  std::vector<std::pair<int64_t, int64_t>> cap;  // watts from an instant to the end of time; at most one
  Request request;
  int64_t host_w = 0, gpus_per_host = 0;

  Snapshot snapshot() const {
    Snapshot snapshot(fleet);
    for (const reserve::Claim& claim : claims) snapshot = snapshot.with_claim(claim).value();
    for (size_t i = 0; i < drained.size(); ++i) {
      auto host = static_cast<fleet::HostIndex>(i);
      if (drained[i]) snapshot = snapshot.with_out_of_use(host, "drained");
      if (lemon[i]) snapshot = snapshot.with_lemon(host, true);
    }
    for (auto [watts, start] : cap) snapshot = snapshot.with_power_cap(0, watts, start, kHorizon);
    return snapshot;
  }
};

int64_t pick(Prng& random, int64_t low, int64_t high) {  // both ends
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}
bool chance(Prng& random, int64_t in) { return random.below(static_cast<uint64_t>(in)) == 0; }

/// Rows of one rack's leaf, or over all leaves of a spine, or none; budgets between nothing and plenty.
Fleet any_fleet(Prng& random, fleet::SeriesIndex series, int64_t host_w) {
  fleet::FleetParts parts;
  parts.name = "small";
  parts.sites.push_back({"s"});
  int64_t spines = pick(random, 1, 2), hosts = 0;
  for (int64_t spine = 0; spine < spines; ++spine) {
    auto spine_switch = static_cast<fleet::SwitchIndex>(parts.switches.size());
    parts.switches.push_back({fmt::format("p{}", spine), fleet::SwitchTier::kSpine, -1, 1});
    bool shared_row = chance(random, 4);
    for (int64_t leaf = pick(random, 1, 3); leaf > 0; --leaf) {
      auto leaf_switch = static_cast<fleet::SwitchIndex>(parts.switches.size());
      parts.switches.push_back({fmt::format("l{}", leaf_switch), fleet::SwitchTier::kLeaf, spine_switch, 1});
      bool own_row = !shared_row && chance(random, 4);
      bool new_row =
          own_row ||
          (shared_row &&
           (parts.rows.empty() || parts.racks.empty() ||
            parts.switches[static_cast<size_t>(parts.racks.back().leaf_switch)].spine != spine_switch));
      if (new_row) parts.rows.emplace_back().id = fmt::format("w{}", parts.rows.size());
      for (int64_t rack = pick(random, 1, 2); rack > 0 && hosts < kMaxHosts; --rack) {
        fleet::Rack entry;
        entry.id = fmt::format("r{}", parts.racks.size());
        entry.leaf_switch = leaf_switch;
        if (shared_row || own_row) entry.row = static_cast<fleet::RowIndex>(parts.rows.size() - 1);
        int64_t in_rack = std::min<int64_t>(pick(random, 1, 4), kMaxHosts - hosts);
        entry.power_budget_w =
            host_w * (chance(random, 3) ? pick(random, 0, in_rack) : in_rack) + pick(random, 1, 9);
        for (int64_t h = 0; h < in_rack; ++h, ++hosts) {
          fleet::Host host;
          host.id = fmt::format("{}h{}", entry.id, h);
          host.rack = static_cast<fleet::RackIndex>(parts.racks.size());
          host.series = series;
          parts.hosts.push_back(std::move(host));
        }
        parts.racks.push_back(std::move(entry));
      }
    }
  }
  for (fleet::Row& row : parts.rows) row.power_budget_w = host_w * pick(random, 1, 8) + pick(random, 0, 9);
  if (chance(random, 4)) parts.sites[0].power_budget_w = host_w * pick(random, 1, 10) + pick(random, 0, 9);
  return Fleet(std::move(parts));
}

Case any_case(Prng& random) {
  Case made;
  const char* name = chance(random, 4) ? "NDR_GB200_v6" : "LOCAL";
  fleet::SeriesIndex series = *fleet::find_series(name);
  const fleet::Series& entry = fleet::series_catalogue()[static_cast<size_t>(series)];
  made.host_w = entry.host_full_w();
  made.gpus_per_host = entry.gpus_per_host;
  made.fleet = std::make_shared<const Fleet>(any_fleet(random, series, made.host_w));
  auto num_hosts = static_cast<fleet::HostIndex>(made.fleet->hosts().size());
  Snapshot snapshot(made.fleet);
  for (int64_t i = pick(random, 0, 4); i > 0; --i) {
    int64_t start = pick(random, 0, 12);
    reserve::Claim claim{fmt::format("c{}", i), start, start + pick(random, 1, 10), {}};
    for (fleet::HostIndex host = 0; host < num_hosts; ++host) {
      if (chance(random, 5)) claim.hosts.push_back({host, (reserve::GpuMask{1} << made.gpus_per_host) - 1});
    }
    auto next = snapshot.with_claim(claim);
    if (!next) continue;
    snapshot = *std::move(next);
    made.claims.push_back(std::move(claim));
  }
  for (fleet::HostIndex host = 0; host < num_hosts; ++host) {
    made.drained.push_back(chance(random, 9));
    made.lemon.push_back(chance(random, 8));
  }
  if (chance(random, 5)) made.cap.emplace_back(made.host_w * pick(random, 1, 9), pick(random, 0, 12));
  Request& request = made.request;
  request = gang_request(name, 0);
  request.start_ns = pick(random, 0, 8);
  request.duration_ns = pick(random, 1, 8);
  if (chance(random, 3)) request.segment = static_cast<int32_t>(pick(random, 1, 3));
  if (chance(random, 3)) request.max_switches = static_cast<int32_t>(pick(random, 1, 3));
  if (chance(random, 5)) request.spares = 1;
  if (chance(random, 4)) request.layout = Layout::kSpread;
  int64_t hosts = pick(random, 1, 7);
  if (request.segment > 0) hosts = std::max<int64_t>(1, hosts / request.segment) * request.segment;
  request.gpus = hosts * made.gpus_per_host;
  return made;
}

/// Every set of hosts, told good or not and at what cost by the rules as they are written, instant by
/// instant.
class Exhaustive {
 public:
  explicit Exhaustive(const Case& of) : case_(of), fleet_(*of.fleet) {
    for (size_t i = 0; i < fleet_.hosts().size(); ++i) {
      auto host = static_cast<fleet::HostIndex>(i);
      bool is_free = !case_.drained[i];
      for (int64_t t = start(); t < end(); ++t) is_free = is_free && !is_taken(host, t);
      free_.push_back(is_free);
      hosts_by_[{0, fleet_.host(host).rack}] |= 1u << i;
      if (fleet_.rack(fleet_.host(host).rack).row >= 0)
        hosts_by_[{1, fleet_.rack(fleet_.host(host).rack).row}] |= 1u << i;
      hosts_by_[{2, 0}] |= 1u << i;
      by_leaf_[fleet_.host(host).leaf] |= 1u << i;
    }
    for (auto [level, mask] : hosts_by_) more_[level] = more_hosts(level, mask);
  }

  int64_t hosts_needed() const {
    int64_t hosts = case_.request.gpus / case_.gpus_per_host, segment = case_.request.segment;
    return segment > 0 ? hosts / segment * (segment + case_.request.spares) : hosts + case_.request.spares;
  }

  bool is_good(uint32_t set, bool with_lemons) const {
    if (std::popcount(set) != hosts_needed()) return false;
    for (size_t i = 0; i < free_.size(); ++i) {
      if ((set >> i & 1) != 0 && (!free_[i] || (case_.lemon[i] && !with_lemons))) return false;
    }
    for (auto [level, mask] : hosts_by_) {
      if (std::popcount(set & mask) > more_.at(level) && (set & mask) != 0) return false;
    }
    int leaves = 0, block = case_.request.segment > 0 ? case_.request.segment + case_.request.spares : 1;
    for (auto [leaf, mask] : by_leaf_) {
      leaves += (set & mask) != 0;
      if (std::popcount(set & mask) % block != 0) return false;
    }
    return case_.request.max_switches == 0 || leaves <= case_.request.max_switches;
  }

  int64_t cost(uint32_t set, bool with_lemons) const {
    std::map<fleet::SpineIndex, int> spines;
    int64_t leaves = 0, left_over = 0, lemons = 0, most_on_leaf = 0, most_in_rack = 0, racks = 0;
    for (auto [leaf, mask] : by_leaf_) {
      int64_t taken = std::popcount(set & mask);
      if (taken == 0) continue;
      ++leaves;
      ++spines[fleet_.leaf(leaf).spine];
      left_over += leaf_room(mask, with_lemons) - taken;
      most_on_leaf = std::max(most_on_leaf, taken);
    }
    for (auto [level, mask] : hosts_by_) {
      int64_t taken = level.first == 0 ? std::popcount(set & mask) : 0;
      racks += taken > 0;
      most_in_rack = std::max(most_in_rack, taken);
    }
    for (size_t i = 0; i < free_.size(); ++i) lemons += (set >> i & 1) != 0 && case_.lemon[i];
    if (case_.request.layout == Layout::kSpread)
      return 1000 * most_on_leaf + 100 * most_in_rack + 20 * lemons;
    return 1000 * static_cast<int64_t>(spines.size()) + 100 * leaves + 50 * (has_domains() ? racks : 0) +
           20 * lemons + left_over;
  }

  /// The cheapest set: hosts that fail often only where nothing goes without them.
  std::optional<int64_t> best() const {
    for (bool with_lemons : {false, true}) {
      std::optional<int64_t> best;
      for (uint32_t set = 1; set < (1u << free_.size()); ++set) {
        if (!is_good(set, with_lemons)) continue;
        int64_t its_cost = cost(set, with_lemons);
        if (!best || its_cost < *best) best = its_cost;
      }
      if (best) return best;
    }
    return std::nullopt;
  }

 private:
  using Level = std::pair<int, int32_t>;  // 0 rack, 1 row, 2 site; its index

  int64_t start() const { return case_.request.start_ns; }
  int64_t end() const { return start() + case_.request.duration_ns; }
  bool has_domains() const { return case_.gpus_per_host == 4; }  // NDR_GB200_v6

  bool is_taken(fleet::HostIndex host, int64_t time) const {
    return std::ranges::any_of(case_.claims, [&](const reserve::Claim& claim) {
      return claim.start_ns <= time && time < claim.end_ns &&
             std::ranges::any_of(claim.hosts, [&](const auto& part) { return part.host == host; });
    });
  }

  int64_t budget_w(const Level& level, int64_t time) const {
    auto i = static_cast<size_t>(level.second);
    if (level.first == 0) return fleet_.racks()[i].power_budget_w;
    int64_t watts = level.first == 1 ? fleet_.rows()[i].power_budget_w : fleet_.sites()[i].power_budget_w;
    if (watts == 0) watts = INT64_MAX;
    if (level.first == 2) {
      for (auto [cap_w, from] : case_.cap)
        watts = time >= from && time < kHorizon ? std::min(watts, cap_w) : watts;
    }
    return watts;
  }

  /// Hosts that could be added at every instant of the window.
  int64_t more_hosts(const Level& level, uint32_t mask) const {
    int64_t more = std::popcount(mask);
    for (int64_t t = start(); t < end(); ++t) {
      int64_t watts = 0;
      for (size_t i = 0; i < free_.size(); ++i) {
        watts += (mask >> i & 1) != 0 && is_taken(static_cast<fleet::HostIndex>(i), t) ? case_.host_w : 0;
      }
      more = std::min(more, std::max<int64_t>(0, budget_w(level, t) - watts) / case_.host_w);
    }
    return more;
  }

  /// Hosts of one leaf that could be taken: rack by rack, then what rows below the leaf allow.
  int64_t leaf_room(uint32_t leaf, bool with_lemons) const {
    std::map<int32_t, int64_t> by_row;
    for (auto [level, mask] : hosts_by_) {
      if (level.first != 0 || (mask & leaf) == 0) continue;
      int64_t free = 0;
      for (size_t i = 0; i < free_.size(); ++i) {
        free += (mask >> i & 1) != 0 && free_[i] && (with_lemons || !case_.lemon[i]);
      }
      by_row[fleet_.rack(level.second).row] += std::min(free, more_.at(level));
    }
    int64_t room = 0;
    for (auto [row, hosts] : by_row) {
      bool is_below = row >= 0 && (hosts_by_.at({1, row}) & ~leaf) == 0;
      room += is_below ? std::min(hosts, more_.at({1, row})) : hosts;
    }
    return room;
  }

  const Case& case_;
  const Fleet& fleet_;
  std::vector<bool> free_;
  std::map<Level, uint32_t> hosts_by_;
  std::map<Level, int64_t> more_;
  std::map<fleet::LeafIndex, uint32_t> by_leaf_;
};

std::string describe(const Case& of, int64_t best, int64_t cost) {
  const Request& request = of.request;
  return fmt::format("{} hosts of {} on {} leaves, {}, switches {}, segment {}, spares {}: {} instead of {}",
                     request.gpus / of.gpus_per_host, of.fleet->hosts().size(), of.fleet->leaves().size(),
                     request.layout == Layout::kSpread ? "spread" : "packed", request.max_switches,
                     request.segment, request.spares, cost, best);
}

}  // namespace

OptimalResult run_optimal(int64_t cases, uint64_t seed) {
  Prng random(seed);
  OptimalResult result;
  double sum = 0;
  result.log_hash = kLogHashStart;
  for (; result.cases < cases; ++result.cases) {
    Case entry = any_case(random);
    Exhaustive exhaustive(entry);
    Snapshot snapshot = entry.snapshot();
    reserve::Policy policy;
    policy.find_changes = false;
    auto plan = reserve::decide(snapshot, entry.request, policy, 0);
    auto best = exhaustive.best();
    result.placed += best.has_value();
    result.missed += best && !plan;
    result.unsound += plan && !best;
    if (!plan || !best) continue;
    hash_plan(result.log_hash, *plan);
    uint32_t set = 0;
    for (const auto& part : plan->hosts) set |= 1u << part.host;
    reserve::PlaceCost cost = reserve::place_cost(snapshot, entry.request, *plan);
    bool with_lemons = cost.lemons > 0;
    if (!exhaustive.is_good(set, with_lemons) || exhaustive.cost(set, with_lemons) != cost.total)
      ++result.unsound;
    double gap = 100.0 * static_cast<double>(cost.total - *best) / static_cast<double>(*best);
    sum += gap;
    result.exact += cost.total == *best;
    if (gap <= result.max_gap_pct) continue;
    result.max_gap_pct = gap;
    result.worst = describe(entry, *best, cost.total);
  }
  if (result.placed > result.missed)
    result.mean_gap_pct = sum / static_cast<double>(result.placed - result.missed);
  return result;
}

}  // namespace th::sim
