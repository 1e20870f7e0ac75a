#include "reserve/room.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

namespace th::reserve::detail {
namespace {

bool counts(const Query& query, const Busy& busy) {
  if (query.ignore_claims || busy.claim.get() == query.without) return false;
  return busy.start_ns < query.end_ns && query.start_ns < busy.end_ns;
}

const HostState* state_on(const Query& query, const Page& page, HostIndex host) {
  const fleet::Leaf& leaf = query.root.fleet->leaf(query.root.fleet->host(host).leaf);
  return page.hosts[static_cast<size_t>(host - leaf.first_host)].get();
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

/// Takes `need` GPUs below one leaf into `hosts`; they must be there.
void take_from_leaf(const Query& query, fleet::LeafIndex leaf_index, int64_t need,
                    std::vector<HostGpus>& hosts) {
  const Fleet& fleet = *query.root.fleet;
  const fleet::Leaf& leaf = fleet.leaf(leaf_index);
  const Page& page = *find_page(query.root, leaf_index);
  std::vector<int64_t> room;
  if (query.root.is_slice) {
    for (int32_t i = 0; i < leaf.num_hosts; ++i) {
      room.push_back(std::popcount(free_gpus(query, page, leaf.first_host + i)));
    }
    std::vector<int64_t> take = fewest_bins(room, need);
    for (int32_t i = 0; i < leaf.num_hosts; ++i) {
      if (take[static_cast<size_t>(i)] == 0) continue;
      HostIndex host = leaf.first_host + i;
      hosts.push_back({host, lowest(free_gpus(query, page, host), take[static_cast<size_t>(i)])});
    }
    return;
  }
  for (int32_t i = 0; i < leaf.num_racks; ++i)
    room.push_back(rack_room(query, page, leaf.first_rack + i).gpus);
  std::vector<int64_t> take = fewest_bins(room, need);
  for (int32_t i = 0; i < leaf.num_racks; ++i) {
    int64_t left = take[static_cast<size_t>(i)];
    const fleet::Rack& rack = fleet.rack(leaf.first_rack + i);
    for (HostIndex host = rack.first_host; left > 0; ++host) {
      GpuMask free = free_gpus(query, page, host);
      if (free == 0) continue;
      hosts.push_back({host, free});
      left -= std::popcount(free);
    }
  }
}

}  // namespace

GpuMask free_gpus(const Query& query, const Page& page, HostIndex host) {
  const fleet::Host& entry = query.root.fleet->host(host);
  if (query.series >= 0 && entry.series != query.series) return 0;
  const HostState* state = state_on(query, page, host);
  if (state == nullptr) return query.root.is_slice ? 0 : all_gpus(entry.gpus);
  if (state->out_of_use && !query.ignore_drains) return 0;
  GpuMask busy_gpus = 0;
  for (const Busy& busy : state->busy) busy_gpus |= counts(query, busy) ? busy.gpus : 0;
  if (query.root.is_slice) return state->exists & ~busy_gpus;
  return busy_gpus == 0 ? state->exists : 0;
}

int64_t peak_power_w(const Query& query, const Page& page, RackIndex rack_index) {
  const fleet::Rack& rack = query.root.fleet->rack(rack_index);
  std::vector<std::pair<int64_t, int64_t>> steps;  // (time, watts more from then on)
  for (HostIndex host = rack.first_host; host < rack.first_host + rack.num_hosts; ++host) {
    const HostState* state = state_on(query, page, host);
    if (state == nullptr) continue;
    const fleet::Series& series = query.root.fleet->series_of(host);
    int64_t idle_until = kAlwaysStart;  // the host's idle watts are counted up to here
    for (const Busy& busy : state->busy) {
      if (!counts(query, busy)) continue;
      int64_t gpus_w = std::popcount(busy.gpus) * series.gpu_w;
      int64_t start = std::max(busy.start_ns, query.start_ns);
      steps.emplace_back(start, gpus_w);
      steps.emplace_back(busy.end_ns, -gpus_w);
      if (busy.end_ns <= idle_until) continue;
      steps.emplace_back(std::max(start, idle_until), series.host_idle_w);
      steps.emplace_back(busy.end_ns, -series.host_idle_w);
      idle_until = busy.end_ns;
    }
  }
  std::ranges::sort(steps);  // at one time, what ends goes before what starts: it has fewer watts
  int64_t watts = 0, peak = 0;
  for (const auto& step : steps) {
    watts += step.second;
    peak = std::max(peak, watts);
  }
  return peak;
}

RackRoom rack_room(const Query& query, const Page& page, RackIndex rack_index) {
  const fleet::Rack& rack = query.root.fleet->rack(rack_index);
  RackRoom room;
  for (HostIndex host = rack.first_host; host < rack.first_host + rack.num_hosts; ++host) {
    room.free_gpus += std::popcount(free_gpus(query, page, host));
  }
  room.gpus = room.free_gpus;
  int64_t budget_w = rack.power_budget_w;
  for (const PowerRaise& raise : query.raises) budget_w += raise.rack == rack_index ? raise.raise_w : 0;
  if (room.gpus == 0 || query.root.is_slice || query.ignore_power || rack.full_w <= budget_w) return room;
  const fleet::Series& series = fleet::series_catalogue()[static_cast<size_t>(query.series)];
  int64_t left_w = std::max<int64_t>(0, budget_w - peak_power_w(query, page, rack_index));
  room.gpus = std::min(room.gpus, left_w / series.host_full_w() * series.gpus_per_host);
  return room;
}

int64_t leaf_room(const Query& query, fleet::LeafIndex leaf_index) {
  const Page* page = find_page(query.root, leaf_index);
  if (page == nullptr) return 0;
  bool as_it_is = !query.ignore_drains && !query.ignore_power && query.raises.empty() && !query.root.is_slice;
  if (as_it_is && page->num_claims == 0) {
    auto series = static_cast<size_t>(query.series);
    return page->clear_hosts[series] * fleet::series_catalogue()[series].gpus_per_host;
  }
  const fleet::Leaf& leaf = query.root.fleet->leaf(leaf_index);
  int64_t gpus = 0;
  for (RackIndex rack = leaf.first_rack; rack < leaf.first_rack + leaf.num_racks; ++rack) {
    gpus += rack_room(query, *page, rack).gpus;
  }
  return gpus;
}

std::vector<int64_t> leaf_rooms(const Query& query) {
  std::vector<int64_t> rooms(query.root.fleet->leaves().size());
  for (size_t i = 0; i < rooms.size(); ++i) rooms[i] = leaf_room(query, static_cast<fleet::LeafIndex>(i));
  return rooms;
}

std::vector<int64_t> site_rooms(const Query& query) {
  std::vector<int64_t> by_leaf = leaf_rooms(query);
  std::vector<int64_t> by_site(query.root.fleet->sites().size());
  for (size_t i = 0; i < by_leaf.size(); ++i) {
    by_site[static_cast<size_t>(query.root.fleet->leaves()[i].site)] += by_leaf[i];
  }
  return by_site;
}

std::vector<int64_t> fewest_bins(std::span<const int64_t> room, int64_t need) {
  std::vector<int64_t> take(room.size());
  std::vector<size_t> largest_first(room.size());
  std::iota(largest_first.begin(), largest_first.end(), size_t{0});
  std::ranges::stable_sort(largest_first, [&](size_t a, size_t b) { return room[a] > room[b]; });
  size_t next = 0;
  for (; room[largest_first[next]] < need; ++next) {
    take[largest_first[next]] = room[largest_first[next]];
    need -= room[largest_first[next]];
  }
  size_t best = largest_first[next];
  for (; next < largest_first.size() && room[largest_first[next]] >= need; ++next) {
    if (room[largest_first[next]] < room[best]) best = largest_first[next];
  }
  take[best] = need;
  return take;
}

std::vector<HostGpus> place(const Query& query, int64_t need) {
  const Fleet& fleet = *query.root.fleet;
  std::vector<int64_t> rooms = leaf_rooms(query);
  std::vector<int64_t> best;  // takes by leaf
  int64_t best_leaves = 0, best_left_over = 0;
  for (size_t begin = 0, end = 0; begin < rooms.size(); begin = end) {
    while (end < rooms.size() && fleet.leaves()[end].site == fleet.leaves()[begin].site) ++end;
    std::span<const int64_t> site(rooms.data() + begin, end - begin);
    if (std::accumulate(site.begin(), site.end(), int64_t{0}) < need) continue;
    std::vector<int64_t> take(rooms.size());
    std::ranges::copy(fewest_bins(site, need), take.begin() + static_cast<std::ptrdiff_t>(begin));
    int64_t leaves = 0, left_over = 0;
    for (size_t i = begin; i < end; ++i) {
      leaves += take[i] > 0;
      left_over += take[i] > 0 ? rooms[i] - take[i] : 0;
    }
    if (!best.empty() && std::pair(leaves, left_over) >= std::pair(best_leaves, best_left_over)) continue;
    best = std::move(take);
    best_leaves = leaves;
    best_left_over = left_over;
  }
  std::vector<HostGpus> hosts;
  for (size_t i = 0; i < best.size(); ++i) {
    if (best[i] > 0) take_from_leaf(query, static_cast<fleet::LeafIndex>(i), best[i], hosts);
  }
  return hosts;
}

std::vector<HostGpus> place_clear(const Root& root, fleet::SeriesIndex series_index, int64_t need) {
  auto series = static_cast<size_t>(series_index);
  int64_t need_hosts = need / fleet::series_catalogue()[series].gpus_per_host;
  if (root.is_slice || need_hosts > 63) return {};
  uint64_t fitting = root.clear_masks[series] >> need_hosts << need_hosts;
  if (fitting == 0) return {};
  int bit = std::countr_zero(fitting);
  auto has = [&](uint64_t mask) { return (mask >> bit & 1) != 0; };
  for (size_t c = 0; c < root.chunks.size(); ++c) {
    if (!has(root.chunks[c]->clear_masks[series])) continue;
    const auto& pages = root.chunks[c]->pages;
    for (size_t p = 0; p < pages.size(); ++p) {
      if (!has(uint64_t{1} << clear_bit(pages[p]->clear_hosts[series]))) continue;
      std::vector<HostGpus> hosts;
      Query always{root, series_index, kAlwaysStart, kAlwaysEnd};
      take_from_leaf(always, static_cast<fleet::LeafIndex>(c * kLeavesPerChunk + p), need, hosts);
      return hosts;
    }
  }
  return {};
}

std::optional<int64_t> earliest_start(Query query, int64_t need, int64_t duration_ns, int64_t from_ns,
                                      int64_t last_ns) {
  const Fleet& fleet = *query.root.fleet;
  if (from_ns > last_ns) return std::nullopt;
  // Room grows only where a claim ends, and shrinks only where the window's end runs into one.
  std::vector<std::pair<int64_t, fleet::LeafIndex>> turns;
  for (size_t i = 0; i < fleet.leaves().size(); ++i) {
    auto leaf = static_cast<fleet::LeafIndex>(i);
    const Page* page = find_page(query.root, leaf);
    turns.emplace_back(from_ns, leaf);
    if (page == nullptr || page->num_claims == 0) continue;
    for (const auto& state : page->hosts) {
      if (!state) continue;
      for (const Busy& busy : state->busy) {
        for (int64_t turn : {busy.end_ns, busy.start_ns - duration_ns + 1}) {
          if (turn > from_ns && turn <= last_ns) turns.emplace_back(turn, leaf);
        }
      }
    }
  }
  std::ranges::sort(turns);
  turns.erase(std::unique(turns.begin(), turns.end()), turns.end());

  std::vector<int64_t> rooms(fleet.leaves().size()), sites(fleet.sites().size());
  for (size_t i = 0; i < turns.size();) {
    query.start_ns = turns[i].first;
    query.end_ns = query.start_ns + duration_ns;
    for (; i < turns.size() && turns[i].first == query.start_ns; ++i) {
      auto leaf = static_cast<size_t>(turns[i].second);
      int64_t room = leaf_room(query, turns[i].second);
      sites[static_cast<size_t>(fleet.leaves()[leaf].site)] += room - rooms[leaf];
      rooms[leaf] = room;
    }
    if (std::ranges::max(sites) >= need) return query.start_ns;
  }
  return std::nullopt;
}

}  // namespace th::reserve::detail
