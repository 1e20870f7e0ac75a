#include "reserve/changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <map>

#include "base/text.h"
#include "base/units.h"

namespace th::reserve::detail {
namespace {

constexpr size_t kMaxEdits = 64;  // a change of more hosts or claims than this is not told

bool fits(const Query& query, const Demand& demand) { return most_units(query, demand) >= demand.units; }

int64_t gpus_of(const Claim& claim) {
  int64_t gpus = 0;
  for (const HostGpus& part : claim.hosts) gpus += std::popcount(part.gpus);
  return gpus;
}

/// Ask for what fits now.
void try_fewer(const Ask& ask, std::vector<Change>& changes) {
  int64_t gpus = ask.gpus_without_spares(most_units(ask.query(), ask.demand()));
  if (gpus == 0) return;
  Change change;
  change.gpus = gpus;
  change.size_ppm =
      part_ppm(ask.gpus_without_spares(ask.units()) - gpus, ask.gpus_without_spares(ask.units()));
  change.text = "ask for " + counted(gpus, "GPU");
  changes.push_back(std::move(change));
}

/// The longest time that fits now, in whole minutes where it has one.
void try_shorter(const Ask& ask, std::vector<Change>& changes) {
  auto fits_s = [&](int64_t seconds) {
    Query query = ask.query();
    query.end_ns = query.start_ns + seconds * kSecond;
    return fits(query, ask.demand());
  };
  int64_t good = 0, bad = (ask.request.duration_ns + kSecond - 1) / kSecond;
  while (bad - good > 1) {
    int64_t middle = good + (bad - good) / 2;
    (fits_s(middle) ? good : bad) = middle;
  }
  if (good >= 60) good -= good % 60;
  if (good == 0) return;
  Change change;
  change.duration_ns = good * kSecond;
  change.size_ppm = part_ppm(ask.request.duration_ns - *change.duration_ns, ask.request.duration_ns);
  change.text = "shorten to " + format_duration(*change.duration_ns);
  changes.push_back(std::move(change));
}

/// Steps that only ever make room: returning a host, ending a claim.
struct Edit {
  HostIndex host = -1;
  std::shared_ptr<const Claim> claim;
};

Snapshot apply(Snapshot snapshot, std::span<const Edit> edits) {
  for (const Edit& edit : edits) {
    snapshot =
        edit.claim ? snapshot.without_claim(*edit.claim) : snapshot.with_out_of_use(edit.host, std::nullopt);
  }
  return snapshot;
}

/// The first edits that together make the gang fit, less those it fits without. Empty when they do not.
std::vector<Edit> enough_of(const Ask& ask, std::vector<Edit> edits) {
  auto good = [&](std::span<const Edit> chosen) {
    Snapshot after = apply(ask.snapshot, chosen);
    Ask then = {after, ask.request, ask.policy, ask.series, ask.gpus, ask.start_ns, ask.unit_gpus, ask.block};
    return fits(then.query(), then.demand());
  };
  if (edits.size() > kMaxEdits) edits.resize(kMaxEdits);
  size_t count = 1;
  while (count <= edits.size() && !good({edits.data(), count})) ++count;
  if (count > edits.size()) return {};
  edits.resize(count);
  for (size_t i = edits.size(); i-- > 0 && edits.size() > 1;) {
    std::vector<Edit> fewer = edits;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (good(fewer)) edits = std::move(fewer);
  }
  return edits;
}

/// Hosts out of use that would have room for the gang.
std::vector<Edit> drained_hosts(const Ask& ask) {
  Query query = ask.query();
  query.ignore_drains = query.use_lemons = true;
  std::vector<Edit> edits;
  for (size_t i = 0; i < ask.snapshot.fleet().hosts().size(); ++i) {
    auto host = static_cast<HostIndex>(i);
    if (!view_host(query.root, host).is_out_of_use()) continue;
    if (free_gpus(query, host) != 0) edits.push_back({host, nullptr});
  }
  return edits;
}

/// Units that the leaves of a claim would have more without it; where rows or sites run short, units of the
/// gang.
int64_t gain_without(const Ask& ask, const Claim& claim) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query without = ask.query();
  without.without = &claim;
  without.use_lemons = true;
  Query with = ask.query();
  with.use_lemons = true;
  int64_t gain = 0;
  fleet::LeafIndex last = -1;
  for (const HostGpus& part : claim.hosts) {
    fleet::LeafIndex leaf = fleet.host(part.host).leaf;
    if (leaf == last) continue;
    last = leaf;
    gain += leaf_room(without, leaf) - leaf_room(with, leaf);
  }
  if (gain == 0) gain = most_units(without, ask.demand()) - most_units(with, ask.demand());
  return gain;
}

/// Claims in the way: first those that suffice alone, the smallest first, then those that bring most.
std::vector<Edit> claims_in_the_way(const Ask& ask) {
  Query query = ask.query();
  std::map<std::string, std::shared_ptr<const Claim>> claims;
  for (size_t i = 0; i < ask.snapshot.fleet().hosts().size(); ++i) {
    for (const Busy& busy : view_host(query.root, static_cast<HostIndex>(i)).busy) {
      if (busy.start_ns < query.end_ns && query.start_ns < busy.end_ns)
        claims.emplace(busy.claim->id, busy.claim);
    }
  }
  int64_t missing = ask.units() - most_units(query, ask.demand());
  struct Ranked {
    bool is_partial;
    int64_t size;
    Edit edit;
  };
  std::vector<Ranked> ranked;
  for (const auto& entry : claims) {
    int64_t gain = gain_without(ask, *entry.second);
    if (gain == 0) continue;
    bool is_partial = gain < missing;
    ranked.push_back({is_partial, is_partial ? -gain : gpus_of(*entry.second), {-1, entry.second}});
  }
  std::ranges::stable_sort(ranked, [](const Ranked& a, const Ranked& b) {
    return std::pair(a.is_partial, a.size) < std::pair(b.is_partial, b.size);
  });
  std::vector<Edit> edits;
  for (Ranked& entry : ranked) edits.push_back(std::move(entry.edit));
  return edits;
}

void tell_edits(const Ask& ask, const std::vector<Edit>& edits, std::vector<Change>& changes) {
  if (edits.empty()) return;
  Change change;
  std::vector<std::string> hosts;
  int64_t gpus = 0;
  for (const Edit& edit : edits) {
    if (edit.claim) {
      change.release_claims.push_back(edit.claim->id);
      gpus += gpus_of(*edit.claim);
    } else {
      change.return_hosts.push_back(edit.host);
      hosts.push_back(ask.snapshot.fleet().host(edit.host).id);
      gpus += ask.snapshot.fleet().host(edit.host).gpus;
    }
  }
  change.size_ppm = part_ppm(gpus, ask.gpus);
  if (!hosts.empty()) change.text = fmt::format("return {} to use", list_some(hosts));
  if (!change.release_claims.empty()) {
    change.text +=
        fmt::format("{}end {} early", hosts.empty() ? "" : ", and ", list_some(change.release_claims));
  }
  changes.push_back(std::move(change));
}

struct Short {
  RackIndex rack = 0;
  int64_t extra = 0;    // hosts that are free, and without power
  int64_t raise_w = 0;  // for as many of them as are missing
};

/// Tells the raises when the gang fits with them.
void tell_raises(const Ask& ask, std::vector<PowerRaise> raises, std::vector<Change>& changes) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query query = ask.query();
  query.raises = raises;
  if (raises.empty() || raises.size() > kMaxEdits || !fits(query, ask.demand())) return;
  Change change;
  std::vector<std::string> texts;
  int64_t watts = 0;
  for (const PowerRaise& raise : raises) {
    auto i = static_cast<size_t>(raise.index);
    std::string name = raise.level == PowerLevel::kRack  ? "rack " + fleet.racks()[i].id
                       : raise.level == PowerLevel::kRow ? "row " + fleet.rows()[i].id
                                                         : "site " + fleet.sites()[i].id;
    texts.push_back(fmt::format("{}'s budget by {} W", name, raise.raise_w));
    watts += raise.raise_w;
  }
  change.raise_power = std::move(raises);
  change.size_ppm = part_ppm(watts, ask.units() * unit_w(query));
  change.text = "raise " + list_some(texts);
  changes.push_back(std::move(change));
}

/// More power for the racks of one site: as few racks as do it, and of those the fewest watts.
void try_rack_power(const Ask& ask, fleet::SiteIndex site, int64_t missing, std::vector<Change>& changes) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query query = ask.query();
  query.use_lemons = true;
  std::vector<Short> racks;
  std::vector<int64_t> room(fleet.racks().size());
  auto raise_for = [&](RackIndex rack, int64_t more) {
    const RackIndex racks_of[] = {rack};
    int64_t peak_w = PowerProfile(query, racks_of).peak_w(query.start_ns, query.end_ns);
    return peak_w + (room[static_cast<size_t>(rack)] + more) * unit_w(query) -
           fleet.rack(rack).power_budget_w;
  };
  for (int32_t leaf : leaves_of(fleet, site)) {
    const fleet::Leaf& entry = fleet.leaf(leaf);
    if (!entry.power_can_run_short) continue;
    RackRooms rooms = rack_rooms(query, *find_page(query.root, leaf), leaf);
    for (size_t i = 0; i < rooms.free.size(); ++i) {
      auto rack = entry.first_rack + static_cast<RackIndex>(i);
      int64_t extra = rooms.free[i] - rooms.bins.room[i];
      room[static_cast<size_t>(rack)] = rooms.bins.room[i];
      if (extra > 0) racks.push_back({rack, extra, raise_for(rack, std::min(extra, missing))});
    }
  }
  std::ranges::stable_sort(racks, [&](const Short& a, const Short& b) {
    return std::pair(-std::min(a.extra, missing), a.raise_w) <
           std::pair(-std::min(b.extra, missing), b.raise_w);
  });
  std::vector<PowerRaise> raises;
  for (size_t i = 0; i < racks.size() && missing > 0; ++i) {
    int64_t take = std::min(racks[i].extra, missing);
    missing -= take;
    raises.push_back({PowerLevel::kRack, racks[i].rack, raise_for(racks[i].rack, take)});
  }
  if (missing <= 0) tell_raises(ask, std::move(raises), changes);
}

/// More power for the rows of one site that can run short, or for the site.
void try_shared_power(const Ask& ask, fleet::SiteIndex site, int64_t missing, std::vector<Change>& changes) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query query = ask.query();
  auto raise_for = [&](int64_t left_w, int64_t units) { return units * unit_w(query) - left_w; };
  if (int64_t left_w = site_left_w(query, site); left_w / unit_w(query) < ask.units()) {
    tell_raises(ask, {{PowerLevel::kSite, site, raise_for(left_w, ask.units())}}, changes);
  }
  std::vector<PowerRaise> raises;
  for (size_t i = 0; i < fleet.rows().size(); ++i) {
    auto row = static_cast<fleet::RowIndex>(i);
    if (fleet.rows()[i].site != site || !fleet.rows()[i].can_run_short()) continue;
    int64_t left_w = row_left_w(query, row);
    int64_t units =
        std::min<int64_t>(left_w / unit_w(query) + missing, fleet.rows()[i].full_w / unit_w(query));
    if (raise_for(left_w, units) > 0) raises.push_back({PowerLevel::kRow, row, raise_for(left_w, units)});
  }
  for (const PowerRaise& raise : raises) tell_raises(ask, {raise}, changes);
  if (raises.size() > 1) tell_raises(ask, std::move(raises), changes);
}

/// More leaf switches, or other blocks.
void try_topology(const Ask& ask, std::vector<Change>& changes) {
  int64_t leaves = static_cast<int64_t>(ask.snapshot.fleet().leaves().size());
  if (ask.request.max_switches > 0) {
    Demand demand = ask.demand();
    auto count = static_cast<size_t>(ask.request.max_switches);
    do {
      demand.max_leaves = ++count;
    } while (static_cast<int64_t>(count) < leaves && !fits(ask.query(), demand));
    if (fits(ask.query(), demand)) {
      Change change;
      change.max_switches = static_cast<int32_t>(count);
      change.size_ppm = part_ppm(*change.max_switches - ask.request.max_switches, ask.request.max_switches);
      change.text = fmt::format("allow {} switches", count);
      changes.push_back(std::move(change));
    }
  }
  int32_t segment = ask.request.segment;
  for (int32_t smaller = segment - 1; smaller >= 1 && ask.request.spares == 0; --smaller) {
    Demand demand = ask.demand();
    demand.block = smaller;
    if (segment % smaller != 0 || !fits(ask.query(), demand)) continue;
    Change change;
    change.segment = smaller;
    change.size_ppm = part_ppm(segment - smaller, segment);
    change.text = "ask for segments of " + counted(smaller, "host");
    changes.push_back(std::move(change));
    return;
  }
}

}  // namespace

std::vector<Change> find_changes(const Ask& ask) {
  std::vector<Change> changes;
  try_fewer(ask, changes);
  try_shorter(ask, changes);
  std::vector<Edit> drained = drained_hosts(ask);
  tell_edits(ask, enough_of(ask, drained), changes);
  try_topology(ask, changes);
  if (!ask.snapshot.is_slice()) {
    std::vector<int64_t> rooms = most_units_by_site(ask.query(), ask.demand());
    for (size_t i = 0; i < rooms.size(); ++i) {
      auto site = static_cast<fleet::SiteIndex>(i);
      try_rack_power(ask, site, ask.units() - rooms[i], changes);
      try_shared_power(ask, site, ask.units() - rooms[i], changes);
    }
  }
  std::ranges::stable_sort(changes, {}, &Change::size_ppm);
  std::vector<Edit> claims = claims_in_the_way(ask);
  tell_edits(ask, enough_of(ask, claims), changes);
  if (changes.empty()) {
    drained.insert(drained.end(), claims.begin(), claims.end());
    tell_edits(ask, enough_of(ask, drained), changes);
  }
  return changes;
}

}  // namespace th::reserve::detail
