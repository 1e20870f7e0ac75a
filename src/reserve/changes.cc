#include "reserve/changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <map>

#include "base/units.h"

namespace th::reserve::detail {
namespace {

constexpr size_t kMaxEdits = 64;  // a change of more hosts or claims than this is not told

bool fits(const Query& query, int64_t gpus) { return std::ranges::max(site_rooms(query)) >= gpus; }

int64_t gpus_of(const Claim& claim) {
  int64_t gpus = 0;
  for (const HostGpus& part : claim.hosts) gpus += std::popcount(part.gpus);
  return gpus;
}

/// Ask for what fits now.
void try_fewer(const Ask& ask, std::vector<Change>& changes) {
  int64_t gpus = std::ranges::max(site_rooms(ask.query()));
  if (gpus == 0) return;
  Change change;
  change.gpus = gpus;
  change.size_ppm = part_ppm(ask.gpus - gpus, ask.gpus);
  change.text = "ask for " + count_gpus(gpus);
  changes.push_back(std::move(change));
}

/// The longest time that fits now, in whole minutes where it has one.
void try_shorter(const Ask& ask, std::vector<Change>& changes) {
  auto fits_s = [&](int64_t seconds) {
    Query query = ask.query();
    query.end_ns = query.start_ns + seconds * kSecond;
    return fits(query, ask.gpus);
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
    Query now = ask.query();
    return fits({after.root(), now.series, now.start_ns, now.end_ns}, ask.gpus);
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
  query.ignore_drains = true;
  std::vector<Edit> edits;
  for (size_t i = 0; i < ask.snapshot.fleet().hosts().size(); ++i) {
    auto host = static_cast<HostIndex>(i);
    const HostState* state = find_state(query.root, host);
    if (state == nullptr || !state->out_of_use) continue;
    const Page& page = *find_page(query.root, ask.snapshot.fleet().host(host).leaf);
    if (free_gpus(query, page, host) != 0) edits.push_back({host, nullptr});
  }
  return edits;
}

/// GPUs that the leaves of a claim would have more without it.
int64_t gain_without(const Ask& ask, const Claim& claim) {
  const Fleet& fleet = ask.snapshot.fleet();
  Query without = ask.query();
  without.without = &claim;
  int64_t gain = 0;
  fleet::LeafIndex last = -1;
  for (const HostGpus& part : claim.hosts) {
    fleet::LeafIndex leaf = fleet.host(part.host).leaf;
    if (leaf == last) continue;
    last = leaf;
    gain += leaf_room(without, leaf) - leaf_room(ask.query(), leaf);
  }
  return gain;
}

/// Claims in the way: first those that suffice alone, the smallest first, then those that bring most.
std::vector<Edit> claims_in_the_way(const Ask& ask) {
  Query query = ask.query();
  std::map<std::string, std::shared_ptr<const Claim>> claims;
  for (size_t i = 0; i < ask.snapshot.fleet().hosts().size(); ++i) {
    const HostState* state = find_state(query.root, static_cast<HostIndex>(i));
    if (state == nullptr) continue;
    for (const Busy& busy : state->busy) {
      if (busy.start_ns < query.end_ns && query.start_ns < busy.end_ns)
        claims.emplace(busy.claim->id, busy.claim);
    }
  }
  int64_t missing = ask.gpus - std::ranges::max(site_rooms(query));
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

struct RackShort {
  RackIndex rack = 0;
  int64_t extra_gpus = 0;  // free, and without power
  int64_t raise_w = 0;     // for as many of them as are missing
};

/// More power for the racks of one site: as few racks as do it, and of those the fewest watts.
void try_power(const Ask& ask, size_t site, int64_t missing, std::vector<Change>& changes) {
  const Fleet& fleet = ask.snapshot.fleet();
  const fleet::Series& series = fleet::series_catalogue()[static_cast<size_t>(ask.series)];
  Query query = ask.query();
  auto raise_for = [&](RackIndex rack, int64_t more_gpus) {
    const Page& page = *find_page(query.root, fleet.rack(rack).leaf);
    int64_t gpus = rack_room(query, page, rack).gpus + more_gpus;
    return peak_power_w(query, page, rack) + gpus / series.gpus_per_host * series.host_full_w() -
           fleet.rack(rack).power_budget_w;
  };
  std::vector<RackShort> racks;
  for (size_t i = 0; i < fleet.racks().size(); ++i) {
    auto rack = static_cast<RackIndex>(i);
    if (static_cast<size_t>(fleet.racks()[i].site) != site) continue;
    RackRoom room = rack_room(query, *find_page(query.root, fleet.racks()[i].leaf), rack);
    int64_t extra = room.free_gpus - room.gpus;
    if (extra > 0) racks.push_back({rack, extra, raise_for(rack, std::min(extra, missing))});
  }
  std::ranges::stable_sort(racks, [&](const RackShort& a, const RackShort& b) {
    return std::pair(-std::min(a.extra_gpus, missing), a.raise_w) <
           std::pair(-std::min(b.extra_gpus, missing), b.raise_w);
  });
  Change change;
  std::vector<std::string> texts;
  int64_t watts = 0;
  for (size_t i = 0; i < racks.size() && missing > 0; ++i) {
    int64_t take = std::min(racks[i].extra_gpus, missing);
    missing -= take;
    int64_t raise_w = raise_for(racks[i].rack, take);
    change.raise_power.push_back({racks[i].rack, raise_w});
    texts.push_back(fmt::format("rack {}'s budget by {} W", fleet.rack(racks[i].rack).id, raise_w));
    watts += raise_w;
  }
  query.raises = change.raise_power;
  if (missing > 0 || !fits(query, ask.gpus)) return;
  change.size_ppm = part_ppm(watts, ask.gpus / series.gpus_per_host * series.host_full_w());
  change.text = "raise " + list_some(texts);
  changes.push_back(std::move(change));
}

}  // namespace

std::vector<Change> find_changes(const Ask& ask) {
  std::vector<Change> changes;
  try_fewer(ask, changes);
  try_shorter(ask, changes);
  std::vector<Edit> drained = drained_hosts(ask);
  tell_edits(ask, enough_of(ask, drained), changes);
  if (!ask.snapshot.is_slice()) {
    std::vector<int64_t> rooms = site_rooms(ask.query());
    for (size_t site = 0; site < rooms.size(); ++site) try_power(ask, site, ask.gpus - rooms[site], changes);
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
