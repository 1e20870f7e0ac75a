#include "reserve/room.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace th::reserve::detail {
namespace {

const fleet::Series& series_at(fleet::SeriesIndex series) {
  return fleet::series_catalogue()[static_cast<size_t>(series)];
}

bool counts(const Query& query, const Busy& busy) {
  if (query.ignore_claims || busy.claim.get() == query.without) return false;
  return busy.start_ns < query.end_ns && query.start_ns < busy.end_ns;
}

int64_t raised(const Query& query, PowerLevel level, int32_t index) {
  int64_t watts = 0;
  for (const PowerRaise& raise : query.raises) {
    watts += raise.level == level && raise.index == index ? raise.raise_w : 0;
  }
  return watts;
}

/// Lowest `count` bits of a mask that has as many.
GpuMask lowest(GpuMask mask, int64_t count) {
  GpuMask taken = 0;
  for (; count > 0; --count) {
    GpuMask bit = mask & (~mask + 1);
    taken |= bit;
    mask ^= bit;
  }
  return taken;
}

/// Free GPUs of the hosts of one leaf, asked in ascending order.
class Scan {
 public:
  Scan(const Query& query, const Page& page, const fleet::Leaf& leaf)
      : query_(query), page_(page), leaf_(leaf), busy_(page.busy.begin()), flaw_(page.flaws.begin()) {}

  GpuMask free(HostIndex host) {
    if (query_.only != nullptr && !std::ranges::binary_search(*query_.only, host)) return 0;
    int32_t slot = host - leaf_.first_host;
    GpuMask busy_gpus = 0;
    while (busy_ != page_.busy.end() && busy_->slot < slot) ++busy_;
    for (; busy_ != page_.busy.end() && busy_->slot == slot; ++busy_) {
      if (counts(query_, *busy_)) busy_gpus |= busy_->gpus;
    }
    while (flaw_ != page_.flaws.end() && flaw_->slot < slot) ++flaw_;
    if (flaw_ != page_.flaws.end() && flaw_->slot == slot) {
      if (flaw_->out_of_use && !query_.ignore_drains) return 0;
      if (flaw_->is_lemon && !query_.use_lemons) return 0;
    }
    const fleet::Host& entry = query_.root.fleet->host(host);
    if (query_.series >= 0 && entry.series != query_.series) return 0;
    if (!query_.root.is_slice) return busy_gpus == 0 ? all_gpus(entry.gpus) : 0;
    GpuMask gpus = page_.exists[static_cast<size_t>(slot)] & ~busy_gpus;
    if (query_.gpus_per_host == 0) return gpus;
    return std::popcount(gpus) >= query_.gpus_per_host ? lowest(gpus, query_.gpus_per_host) : 0;
  }
  /// Units that the host gives.
  int64_t units(HostIndex host) {
    GpuMask gpus = free(host);
    return query_.root.is_slice && query_.gpus_per_host == 0 ? std::popcount(gpus) : gpus != 0;
  }

 private:
  const Query& query_;
  const Page& page_;
  const fleet::Leaf& leaf_;
  std::vector<Busy>::const_iterator busy_;
  std::vector<Flaw>::const_iterator flaw_;
};

/// Hosts of a leaf that claims or flaws keep from the query. Both lists are by slot.
int64_t count_taken(const Query& query, const Page& page) {
  int64_t taken = 0;
  int32_t last = -1;
  auto flaw = page.flaws.begin();
  auto keeps = [&](const Flaw& entry) {
    return (entry.out_of_use && !query.ignore_drains) || (entry.is_lemon && !query.use_lemons);
  };
  for (const Busy& busy : page.busy) {
    if (busy.slot == last || !counts(query, busy)) continue;
    last = busy.slot;
    for (; flaw != page.flaws.end() && flaw->slot < last; ++flaw) taken += keeps(*flaw);
    if (flaw != page.flaws.end() && flaw->slot == last) ++flaw;
    ++taken;
  }
  for (; flaw != page.flaws.end(); ++flaw) taken += keeps(*flaw);
  return taken;
}

bool counts_power(const Query& query) { return !query.root.is_slice && !query.ignore_power; }

}  // namespace

GpuMask free_gpus(const Query& query, HostIndex host) {
  const fleet::Leaf& leaf = query.root.fleet->leaf(query.root.fleet->host(host).leaf);
  const Page* page = find_page(query.root, query.root.fleet->host(host).leaf);
  return page == nullptr ? 0 : Scan(query, *page, leaf).free(host);
}

PowerProfile::PowerProfile(const Query& query, std::span<const RackIndex> racks) {
  std::vector<std::pair<int64_t, int64_t>> steps;  // (time, watts more from then on)
  const Fleet& fleet = *query.root.fleet;
  for (RackIndex rack_index : racks) {
    const fleet::Rack& rack = fleet.rack(rack_index);
    const Page* page = find_page(query.root, rack.leaf);
    if (page == nullptr) continue;
    int32_t first = rack.first_host - fleet.leaf(rack.leaf).first_host;
    auto busy = std::ranges::lower_bound(page->busy, first, {}, &Busy::slot);
    int32_t slot = -1;
    int64_t idle_until = kAlwaysStart;  // the host's idle watts are counted up to here
    for (; busy != page->busy.end() && busy->slot < first + rack.num_hosts; ++busy) {
      if (busy->slot != slot) slot = busy->slot, idle_until = kAlwaysStart;
      if (query.ignore_claims || busy->claim.get() == query.without) continue;
      const fleet::Series& series = fleet.series_of(rack.first_host + slot - first);
      int64_t gpus_w = std::popcount(busy->gpus) * series.gpu_w;
      steps.emplace_back(busy->start_ns, gpus_w);
      steps.emplace_back(busy->end_ns, -gpus_w);
      if (busy->end_ns <= idle_until) continue;
      steps.emplace_back(std::max(busy->start_ns, idle_until), series.host_idle_w);
      steps.emplace_back(busy->end_ns, -series.host_idle_w);
      idle_until = busy->end_ns;
    }
  }
  std::ranges::sort(steps);
  most_w_.emplace_back();
  int64_t watts = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    watts += steps[i].second;
    if (i + 1 < steps.size() && steps[i + 1].first == steps[i].first) continue;
    times_ns_.push_back(steps[i].first);
    most_w_[0].push_back(watts);
  }
  for (size_t span = 1; 2 * span <= times_ns_.size(); span *= 2) {
    const std::vector<int64_t>& below = most_w_.back();
    std::vector<int64_t> above(times_ns_.size() - 2 * span + 1);
    for (size_t i = 0; i < above.size(); ++i) above[i] = std::max(below[i], below[i + span]);
    most_w_.push_back(std::move(above));
  }
}

int64_t PowerProfile::peak_w(int64_t start_ns, int64_t end_ns) const {
  auto begin = std::ranges::upper_bound(times_ns_, start_ns) - times_ns_.begin();
  auto end = std::ranges::lower_bound(times_ns_, end_ns) - times_ns_.begin();
  if (begin > 0) --begin;  // what holds at the start began before it
  if (begin >= end) return 0;
  auto k = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(end - begin)) - 1);
  const std::vector<int64_t>& most_w = most_w_[k];
  return std::max<int64_t>(
      0, std::max(most_w[static_cast<size_t>(begin)], most_w[static_cast<size_t>(end) - (size_t{1} << k)]));
}

PowerProfile site_profile(const Query& query, fleet::SiteIndex site) {
  std::vector<RackIndex> racks;
  for (size_t i = 0; i < query.root.fleet->racks().size(); ++i) {
    if (query.root.fleet->racks()[i].site == site) racks.push_back(static_cast<RackIndex>(i));
  }
  return PowerProfile(query, racks);
}

int64_t unit_w(const Query& query) { return series_at(query.series).host_full_w(); }

RackRooms rack_rooms(const Query& query, const Page& page, fleet::LeafIndex leaf_index) {
  const Fleet& fleet = *query.root.fleet;
  const fleet::Leaf& leaf = fleet.leaf(leaf_index);
  Scan scan(query, page, leaf);
  RackRooms rooms;
  std::vector<fleet::RowIndex> rows;  // of the groups
  for (RackIndex index = leaf.first_rack; index < leaf.first_rack + leaf.num_racks; ++index) {
    const fleet::Rack& rack = fleet.rack(index);
    int64_t free = 0;
    for (int32_t h = 0; h < rack.num_hosts; ++h) free += scan.units(rack.first_host + h);
    rooms.free.push_back(free);
    rooms.bins.room.push_back(free);
    if (!counts_power(query)) continue;
    if (int64_t budget_w = rack.power_budget_w + raised(query, PowerLevel::kRack, index);
        free > 0 && rack.full_w > budget_w) {
      const RackIndex racks[] = {index};
      int64_t left_w = budget_w - PowerProfile(query, racks).peak_w(query.start_ns, query.end_ns);
      rooms.bins.room.back() = std::clamp<int64_t>(left_w / unit_w(query), 0, free);
    }
    if (!leaf.power_can_run_short) continue;
    if (rack.row < 0 || !fleet.row(rack.row).can_run_short() || fleet.shared_row(leaf_index) >= 0) {
      rooms.bins.group.push_back(-1);
      continue;
    }
    auto row = std::ranges::find(rows, rack.row);
    rooms.bins.group.push_back(static_cast<int32_t>(row - rows.begin()));
    if (row == rows.end()) {
      rows.push_back(rack.row);
      rooms.bins.group_left.push_back(row_left_w(query, rack.row) / unit_w(query));
    }
  }
  return rooms;
}

int64_t page_room(const Query& query, const Page& page, fleet::LeafIndex leaf_index) {
  const fleet::Leaf& leaf = query.root.fleet->leaf(leaf_index);
  if (!query.root.is_slice && query.only == nullptr && leaf.series >= 0 &&
      (!leaf.power_can_run_short || query.ignore_power)) {
    return leaf.series == query.series ? leaf.num_hosts - count_taken(query, page) : 0;
  }
  RackRooms rooms = rack_rooms(query, page, leaf_index);
  std::vector<int32_t> racks(rooms.bins.room.size());
  std::iota(racks.begin(), racks.end(), 0);
  return most(rooms.bins, racks, racks.size());
}

int64_t leaf_room(const Query& query, fleet::LeafIndex leaf) {
  const Chunk* chunk = find_chunk(query.root, leaf);
  if (chunk == nullptr) return 0;
  size_t at = static_cast<size_t>(leaf) % kLeavesPerChunk;
  if (!chunk->pages[at]) return 0;
  const Summary& summary = chunk->summaries[at];
  bool as_it_is = !query.root.is_slice && !query.use_lemons && !query.ignore_claims && !query.ignore_drains &&
                  !query.ignore_power && query.without == nullptr && query.raises.empty() &&
                  query.only == nullptr;
  if (as_it_is && summary.is_all_within(query.start_ns, query.end_ns)) {
    return summary.clear[static_cast<size_t>(query.series)];
  }
  return page_room(query, *chunk->pages[at], leaf);
}

int64_t row_left_w(const Query& query, fleet::RowIndex index, const PowerProfile* profile) {
  const fleet::Row& row = query.root.fleet->row(index);
  int64_t budget_w = row.power_budget_w + raised(query, PowerLevel::kRow, index);
  if (!counts_power(query) || row.power_budget_w == 0 || row.full_w <= budget_w) return kNoLimit;
  int64_t peak_w = profile != nullptr ? profile->peak_w(query.start_ns, query.end_ns)
                                      : PowerProfile(query, row.racks).peak_w(query.start_ns, query.end_ns);
  return std::max<int64_t>(0, budget_w - peak_w);
}

bool site_can_run_short(const Root& root, fleet::SiteIndex site) {
  if (root.is_slice) return false;
  const fleet::Site& entry = root.fleet->sites()[static_cast<size_t>(site)];
  return (entry.power_budget_w > 0 && entry.power_budget_w < entry.full_w) ||
         std::ranges::any_of(root.caps, [&](const PowerCap& cap) { return cap.site == site; });
}

int64_t site_left_w(const Query& query, fleet::SiteIndex site, const PowerProfile* profile) {
  if (!counts_power(query) || !site_can_run_short(query.root, site)) return kNoLimit;
  if (profile == nullptr) {
    PowerProfile own = site_profile(query, site);
    return site_left_w(query, site, &own);
  }
  const fleet::Site& entry = query.root.fleet->sites()[static_cast<size_t>(site)];
  int64_t raise_w = raised(query, PowerLevel::kSite, site), left_w = kNoLimit;
  if (entry.power_budget_w > 0) {
    left_w = entry.power_budget_w + raise_w - profile->peak_w(query.start_ns, query.end_ns);
  }
  for (const PowerCap& cap : query.root.caps) {
    int64_t start = std::max(cap.start_ns, query.start_ns), end = std::min(cap.end_ns, query.end_ns);
    if (cap.site == site && start < end)
      left_w = std::min(left_w, cap.watts + raise_w - profile->peak_w(start, end));
  }
  return std::max<int64_t>(0, left_w);
}

const Bins& Rooms::in_site(fleet::SiteIndex site) {
  leaves.all_left = site_left[static_cast<size_t>(site)];
  return leaves;
}

Rooms find_rooms(const Query& query, int64_t block) {
  const Fleet& fleet = *query.root.fleet;
  Rooms rooms;
  rooms.leaves.block = block;
  rooms.leaves.room.resize(fleet.leaves().size());
  for (size_t i = 0; i < rooms.leaves.room.size(); ++i) {
    rooms.leaves.room[i] = leaf_room(query, static_cast<fleet::LeafIndex>(i));
  }
  auto in_units = [&](int64_t watts) { return watts == kNoLimit ? kNoLimit : watts / unit_w(query); };
  for (size_t i = 0; i < fleet.sites().size(); ++i) {
    rooms.site_left.push_back(in_units(site_left_w(query, static_cast<fleet::SiteIndex>(i))));
  }
  if (!counts_power(query) || !fleet.has_shared_rows()) return rooms;
  rooms.leaves.group.assign(rooms.leaves.room.size(), -1);
  rooms.leaves.group_left.assign(fleet.rows().size(), kNoLimit);
  for (size_t i = 0; i < rooms.leaves.room.size(); ++i) {
    fleet::RowIndex row = fleet.shared_row(static_cast<fleet::LeafIndex>(i));
    rooms.leaves.group[i] = row;
    if (row < 0) continue;
    int64_t& left = rooms.leaves.group_left[static_cast<size_t>(row)];
    if (left == kNoLimit) left = std::min(kNoLimit - 1, in_units(row_left_w(query, row)));
  }
  return rooms;
}

std::vector<int32_t> leaves_of(const Fleet& fleet, fleet::SiteIndex site) {
  std::vector<int32_t> leaves;
  for (size_t i = 0; i < fleet.leaves().size(); ++i) {
    if (fleet.leaves()[i].site == site) leaves.push_back(static_cast<int32_t>(i));
  }
  return leaves;
}

namespace {

/// From the hosts of one leaf of a slice, from the fewest.
void take_gpus(const Query& query, const Page& page, const fleet::Leaf& leaf, int64_t units,
               std::vector<HostGpus>& hosts) {
  Bins bins;
  std::vector<GpuMask> free;
  std::vector<int32_t> slots(static_cast<size_t>(leaf.num_hosts));
  std::iota(slots.begin(), slots.end(), 0);
  Scan scan(query, page, leaf);
  for (int32_t slot : slots) {
    free.push_back(scan.free(leaf.first_host + slot));
    bins.room.push_back(std::popcount(free.back()));
  }
  for (const Take& take : fewest(bins, slots, units, slots.size())) {
    hosts.push_back({leaf.first_host + take.bin, lowest(free[static_cast<size_t>(take.bin)], take.units)});
  }
}

/// Units by rack of one leaf, from the fewest racks; hosts that are no lemons first.
std::vector<int64_t> share_out(const Query& query, const Page& page, fleet::LeafIndex leaf, int64_t units,
                               int64_t max_in_rack) {
  auto bins_of = [&](const Query& of) {
    Bins bins = rack_rooms(of, page, leaf).bins;
    for (int64_t& room : bins.room) room = max_in_rack > 0 ? std::min(room, max_in_rack) : room;
    return bins;
  };
  Bins bins = bins_of(query);
  std::vector<int32_t> racks(bins.room.size());
  std::iota(racks.begin(), racks.end(), 0);
  std::vector<int64_t> by_rack(racks.size());
  auto take = [&](const Bins& from, int64_t count) {
    for (const Take& entry : fewest(from, racks, count, racks.size())) {
      by_rack[static_cast<size_t>(entry.bin)] += entry.units;
      bins.take(entry.bin, entry.units);
    }
  };
  if (query.use_lemons) {
    Query plain = query;
    plain.use_lemons = false;
    Bins sound = bins_of(plain);
    int64_t count = std::min(units, most(sound, racks, racks.size()));
    if (count > 0) take(sound, count);
    units -= count;
  }
  if (units > 0) take(bins, units);
  return by_rack;
}

void take_from_rack(Query query, const Page& page, const fleet::Leaf& leaf, const fleet::Rack& rack,
                    int64_t units, std::vector<HostGpus>& hosts) {
  std::vector<HostIndex> taken;
  const bool with_lemons = query.use_lemons;
  for (bool lemons : {false, true}) {
    if (units == 0 || (lemons && !with_lemons)) return;
    query.use_lemons = lemons;
    Scan scan(query, page, leaf);
    for (HostIndex host = rack.first_host; units > 0 && host < rack.first_host + rack.num_hosts; ++host) {
      GpuMask free = scan.free(host);
      if (free == 0 || std::ranges::find(taken, host) != taken.end()) continue;
      hosts.push_back({host, free});
      taken.push_back(host);
      --units;
    }
  }
}

}  // namespace

void take_from_leaf(const Query& query, fleet::LeafIndex leaf_index, int64_t units, int64_t max_in_rack,
                    std::vector<HostGpus>& hosts) {
  const Fleet& fleet = *query.root.fleet;
  const fleet::Leaf& leaf = fleet.leaf(leaf_index);
  const Page& page = *find_page(query.root, leaf_index);
  size_t begin = hosts.size();
  if (query.root.is_slice && query.gpus_per_host == 0) {
    take_gpus(query, page, leaf, units, hosts);
  } else {
    std::vector<int64_t> by_rack = share_out(query, page, leaf_index, units, max_in_rack);
    for (size_t i = 0; i < by_rack.size(); ++i) {
      take_from_rack(query, page, leaf, fleet.rack(leaf.first_rack + static_cast<RackIndex>(i)), by_rack[i],
                     hosts);
    }
  }
  std::sort(hosts.begin() + static_cast<std::ptrdiff_t>(begin), hosts.end(),
            [](const HostGpus& a, const HostGpus& b) { return a.host < b.host; });
}

}  // namespace th::reserve::detail
