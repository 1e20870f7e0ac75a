#include "reserve/place.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "reserve/objective.h"

namespace th::reserve::detail {
namespace {

constexpr size_t kMaxSpineSets = 200;  // that are all looked at

const fleet::Series& series_at(fleet::SeriesIndex series) {
  return fleet::series_catalogue()[static_cast<size_t>(series)];
}

/// A leaf with the fewest clear hosts that are enough. Only where what is clear is all that is free.
std::vector<HostGpus> place_clear(const Query& query, const Demand& demand) {
  const Root& root = query.root;
  auto series = static_cast<size_t>(query.series);
  if (root.is_slice || query.only != nullptr || demand.units > 63 || demand.layout != Layout::kPack ||
      series_at(query.series).nvlink_domain_hosts > 1 ||
      !root.all.is_all_within(query.start_ns, query.end_ns)) {
    return {};
  }
  for (size_t site = 0; site < root.fleet->sites().size(); ++site) {
    if (site_can_run_short(root, static_cast<fleet::SiteIndex>(site))) return {};
  }
  if (root.fleet->has_shared_rows()) return {};
  uint64_t fitting = root.clear_masks[series] >> demand.units << demand.units;
  if (fitting == 0) return {};
  int bit = std::countr_zero(fitting);
  for (size_t c = 0; c < root.chunks.size(); ++c) {
    const Chunk& chunk = *root.chunks[c];
    if ((chunk.clear_masks[series] >> bit & 1) == 0) continue;
    for (size_t p = 0; p < chunk.pages.size(); ++p) {
      if (!chunk.pages[p] || clear_bit(chunk.summaries[p].clear[series]) != static_cast<size_t>(bit))
        continue;
      std::vector<HostGpus> hosts;
      take_from_leaf(query, static_cast<fleet::LeafIndex>(c * kLeavesPerChunk + p), demand.units, 0, hosts);
      return hosts;
    }
  }
  return {};
}

/// The search in one window.
class Search {
 public:
  Search(const Query& query, const Demand& demand)
      : query_(query), demand_(demand), fleet_(*query.root.fleet), rooms_(find_rooms(query, demand.block)) {
    if (query.use_lemons) {
      Query plain = query;
      plain.use_lemons = false;
      plain_ = find_rooms(plain, 1).leaves.room;
    }
    has_domains_ = query.series >= 0 && series_at(query.series).nvlink_domain_hosts > 1;
  }

  std::vector<HostGpus> run() {
    for (size_t i = 0; i < fleet_.sites().size(); ++i) {
      auto site = static_cast<fleet::SiteIndex>(i);
      const Bins& bins = rooms_.in_site(site);
      std::vector<int32_t> leaves = leaves_of(fleet_, site);
      if (most(bins, leaves, demand_.max_leaves) < demand_.units) continue;
      if (demand_.layout == Layout::kSpread) {
        spread(bins, leaves);
      } else {
        pack(bins, site);
      }
    }
    std::vector<HostGpus> hosts;
    std::ranges::sort(best_, {}, &Take::bin);
    for (const Take& take : best_) take_from_leaf(query_, take.bin, take.units, max_in_rack_, hosts);
    return hosts;
  }

 private:
  void offer(Takes takes, int64_t cost, int64_t max_in_rack) {
    if (takes.empty() || (!best_.empty() && cost >= best_cost_)) return;
    best_ = std::move(takes);
    best_cost_ = cost;
    max_in_rack_ = max_in_rack;
  }

  int64_t lemons(int32_t leaf, int64_t units) const {
    return plain_.empty() ? 0 : std::max<int64_t>(0, units - plain_[static_cast<size_t>(leaf)]);
  }

  TakeCost take_cost() const {
    if (!has_domains_ && plain_.empty()) return {};
    return [this](int32_t leaf, int64_t units) {
      int64_t cost = kLemonCost * lemons(leaf, units);
      if (!has_domains_) return cost;
      RackRooms rooms = rack_rooms(query_, *find_page(query_.root, leaf), leaf);
      std::vector<int32_t> racks(rooms.bins.room.size());
      std::iota(racks.begin(), racks.end(), 0);
      return cost + kDomainCost * static_cast<int64_t>(fewest(rooms.bins, racks, units, racks.size()).size());
    };
  }

  /// The fewest spines, and of those the cheapest leaves.
  void pack(const Bins& bins, fleet::SiteIndex site) {
    std::vector<std::vector<int32_t>> spines;  // leaves of each, the roomiest spine first
    std::vector<int64_t> room;
    for (const fleet::Spine& spine : fleet_.spines()) {
      if (spine.site != site) continue;
      std::vector<int32_t> leaves(static_cast<size_t>(spine.num_leaves));
      std::iota(leaves.begin(), leaves.end(), spine.first_leaf);
      room.push_back(most(bins, leaves, demand_.max_leaves));
      spines.push_back(std::move(leaves));
    }
    std::vector<size_t> order(spines.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return room[a] > room[b]; });
    TakeCost cost = take_cost();
    for (size_t count = 1; count <= spines.size(); ++count) {
      bool found = false;
      for (const std::vector<size_t>& set : sets_of(order, count)) {
        int64_t sum = 0;
        std::vector<int32_t> leaves;
        for (size_t i : set) sum += room[i], leaves.insert(leaves.end(), spines[i].begin(), spines[i].end());
        if (sum < demand_.units) continue;
        Takes takes = fewest(bins, leaves, demand_.units, demand_.max_leaves, cost);
        if (takes.empty()) continue;
        found = true;
        int64_t total = kSpineCost * static_cast<int64_t>(count) +
                        kLeafCost * static_cast<int64_t>(takes.size()) + cost_of(bins, takes, cost);
        offer(std::move(takes), total, 0);
      }
      if (found) return;
    }
  }

  /// All sets of `count` where they are few, else those of the first and each other one.
  static std::vector<std::vector<size_t>> sets_of(const std::vector<size_t>& order, size_t count) {
    std::vector<std::vector<size_t>> sets;
    std::vector<bool> chosen(order.size());
    std::fill(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(count), true);
    do {
      sets.emplace_back();
      for (size_t i = 0; i < order.size(); ++i) {
        if (chosen[i]) sets.back().push_back(order[i]);
      }
    } while (sets.size() <= kMaxSpineSets && std::prev_permutation(chosen.begin(), chosen.end()));
    if (sets.size() <= kMaxSpineSets) return sets;
    sets.clear();
    for (size_t last = count - 1; last < order.size(); ++last) {
      sets.emplace_back(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count - 1));
      sets.back().push_back(order[last]);
    }
    return sets;
  }

  /// Least on any leaf, then least in any rack.
  void spread(const Bins& bins, const std::vector<int32_t>& leaves) {
    int64_t largest = 0;
    for (int32_t leaf : leaves) largest = std::max(largest, bins.left(leaf));
    auto fits = [&](const Bins& limited) {
      return most(limited, leaves, demand_.max_leaves) >= demand_.units;
    };
    int64_t on_leaf = least(1, largest, [&](int64_t limit) { return fits(limit_leaves(bins, limit)); });
    Bins limited = limit_leaves(bins, on_leaf);
    int64_t in_rack = 0;
    if (!query_.root.is_slice) {
      int64_t most_hosts = 1;
      for (const fleet::Rack& rack : fleet_.racks())
        most_hosts = std::max<int64_t>(most_hosts, rack.num_hosts);
      in_rack =
          least(1, most_hosts, [&](int64_t limit) { return fits(limit_racks(limited, leaves, limit)); });
      limited = limit_racks(limited, leaves, in_rack);
    }
    Takes takes = fewest(limited, leaves, demand_.units, demand_.max_leaves);
    int64_t cost = kMostOnLeafCost * on_leaf + kMostInRackCost * in_rack;
    for (const Take& take : takes) cost += kLemonCost * lemons(take.bin, take.units);
    offer(std::move(takes), cost, in_rack);
  }

  template <class Good>
  static int64_t least(int64_t low, int64_t high, Good good) {  // good(high) holds
    while (low < high) {
      int64_t middle = low + (high - low) / 2;
      if (good(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  static Bins limit_leaves(Bins bins, int64_t limit) {
    for (int64_t& room : bins.room) room = std::min(room, limit);
    return bins;
  }

  Bins limit_racks(Bins bins, const std::vector<int32_t>& leaves, int64_t limit) const {
    for (int32_t leaf : leaves) {
      int64_t& room = bins.room[static_cast<size_t>(leaf)];
      const Page* page = find_page(query_.root, leaf);
      if (room == 0 || page == nullptr) continue;
      Bins racks = limit_leaves(rack_rooms(query_, *page, leaf).bins, limit);
      std::vector<int32_t> all(racks.room.size());
      std::iota(all.begin(), all.end(), 0);
      room = std::min(room, most(racks, all, all.size()));
    }
    return bins;
  }

  const Query& query_;
  const Demand& demand_;
  const Fleet& fleet_;
  Rooms rooms_;
  std::vector<int64_t> plain_;  // rooms without lemons; empty: there are none in use
  bool has_domains_ = false;
  Takes best_;
  int64_t best_cost_ = 0;
  int64_t max_in_rack_ = 0;
};

}  // namespace

std::vector<int64_t> most_units_by_site(Query query, const Demand& demand) {
  query.use_lemons = query.root.num_lemons > 0;
  Rooms rooms = find_rooms(query, demand.block);
  std::vector<int64_t> sums;
  for (size_t i = 0; i < query.root.fleet->sites().size(); ++i) {
    auto site = static_cast<fleet::SiteIndex>(i);
    sums.push_back(most(rooms.in_site(site), leaves_of(*query.root.fleet, site), demand.max_leaves));
  }
  return sums;
}

int64_t most_units(Query query, const Demand& demand) {
  return std::ranges::max(most_units_by_site(query, demand));
}

std::vector<HostGpus> place(const Query& query, const Demand& demand) {
  std::vector<HostGpus> hosts = place_clear(query, demand);
  if (hosts.empty()) hosts = Search(query, demand).run();
  if (!hosts.empty() || query.root.num_lemons == 0) return hosts;
  Query with_lemons = query;
  with_lemons.use_lemons = true;
  return Search(with_lemons, demand).run();
}

std::optional<int64_t> earliest_start(Query query, const Demand& demand, int64_t duration_ns, int64_t from_ns,
                                      int64_t last_ns) {
  const Fleet& fleet = *query.root.fleet;
  if (from_ns > last_ns) return std::nullopt;
  query.use_lemons = query.root.num_lemons > 0;
  // Room grows only where a claim or a cap ends, and shrinks only where the window's end runs into one.
  std::vector<std::pair<int64_t, fleet::LeafIndex>> turns;
  auto add_turns = [&](int64_t start_ns, int64_t end_ns, fleet::LeafIndex leaf) {
    for (int64_t turn : {end_ns, start_ns - duration_ns + 1}) {
      if (turn > from_ns && turn <= last_ns) turns.emplace_back(turn, leaf);
    }
  };
  for (size_t i = 0; i < fleet.leaves().size(); ++i) {
    auto leaf = static_cast<fleet::LeafIndex>(i);
    turns.emplace_back(from_ns, leaf);
    const Page* page = find_page(query.root, leaf);
    if (page == nullptr) continue;
    for (const Busy& busy : page->busy) add_turns(busy.start_ns, busy.end_ns, leaf);
  }
  for (const PowerCap& cap : query.root.caps) add_turns(cap.start_ns, cap.end_ns, 0);
  std::ranges::sort(turns);
  turns.erase(std::unique(turns.begin(), turns.end()), turns.end());

  std::vector<std::optional<PowerProfile>> rows(fleet.rows().size()), sites(fleet.sites().size());
  std::vector<std::vector<int32_t>> leaves;
  for (size_t i = 0; i < sites.size(); ++i) {
    auto site = static_cast<fleet::SiteIndex>(i);
    leaves.push_back(leaves_of(fleet, site));
    if (site_can_run_short(query.root, site)) sites[i] = site_profile(query, site);
  }
  query.start_ns = from_ns;
  query.end_ns = from_ns + duration_ns;
  Rooms rooms = find_rooms(query, demand.block);
  for (size_t i = 0; i < rows.size() && !rooms.leaves.group.empty(); ++i) {
    if (rooms.leaves.group_left[i] != kNoLimit) rows[i] = PowerProfile(query, fleet.rows()[i].racks);
  }
  std::vector<int64_t> sums(sites.size());
  std::fill(rooms.leaves.room.begin(), rooms.leaves.room.end(), 0);
  for (size_t i = 0; i < turns.size();) {
    query.start_ns = turns[i].first;
    query.end_ns = query.start_ns + duration_ns;
    for (; i < turns.size() && turns[i].first == query.start_ns; ++i) {
      int64_t& room = rooms.leaves.room[static_cast<size_t>(turns[i].second)];
      int64_t now = leaf_room(query, turns[i].second);
      sums[static_cast<size_t>(fleet.leaf(turns[i].second).site)] += now - room;
      room = now;
    }
    for (size_t s = 0; s < sites.size(); ++s) {
      if (sums[s] < demand.units) continue;
      auto site = static_cast<fleet::SiteIndex>(s);
      if (sites[s]) rooms.site_left[s] = site_left_w(query, site, &*sites[s]) / unit_w(query);
      for (size_t r = 0; r < rows.size(); ++r) {
        if (rows[r]) {
          rooms.leaves.group_left[r] =
              row_left_w(query, static_cast<fleet::RowIndex>(r), &*rows[r]) / unit_w(query);
        }
      }
      if (most(rooms.in_site(site), leaves[s], demand.max_leaves) >= demand.units) return query.start_ns;
    }
  }
  return std::nullopt;
}

}  // namespace th::reserve::detail

namespace th::reserve {

PlaceCost place_cost(const Snapshot& snapshot, const Request& request, const Plan& plan) {
  const Fleet& fleet = snapshot.fleet();
  detail::Query query{snapshot.root(), -1, plan.start_ns, plan.end_ns};
  if (auto series = fleet::find_series(request.series)) query.series = *series;
  query.gpus_per_host = request.gpus_per_host;
  if (request.only) query.only = &*request.only;
  std::set<fleet::SpineIndex> spines;
  std::vector<int64_t> on_leaf(fleet.leaves().size()), in_rack(fleet.racks().size());
  PlaceCost cost;
  bool in_gpus = snapshot.is_slice() && request.gpus_per_host == 0;
  for (const HostGpus& part : plan.hosts) {
    const fleet::Host& host = fleet.host(part.host);
    int64_t units = in_gpus ? std::popcount(part.gpus) : 1;
    on_leaf[static_cast<size_t>(host.leaf)] += units;
    in_rack[static_cast<size_t>(host.rack)] += units;
    spines.insert(fleet.leaf(host.leaf).spine);
    cost.lemons += snapshot.host_use(part.host, plan.start_ns).is_lemon;
  }
  query.use_lemons = cost.lemons > 0;
  for (size_t i = 0; i < on_leaf.size(); ++i) {
    if (on_leaf[i] == 0) continue;
    ++cost.leaves;
    cost.left_over += detail::leaf_room(query, static_cast<fleet::LeafIndex>(i)) - on_leaf[i];
  }
  cost.spines = static_cast<int32_t>(spines.size());
  cost.most_on_leaf = std::ranges::max(on_leaf);
  cost.most_in_rack = std::ranges::max(in_rack);
  if (query.series >= 0 && detail::series_at(query.series).nvlink_domain_hosts > 1) {
    cost.domains = static_cast<int32_t>(std::ranges::count_if(in_rack, [](int64_t n) { return n > 0; }));
  }
  cost.total = kLemonCost * cost.lemons;
  cost.total += request.layout == Layout::kSpread
                    ? kMostOnLeafCost * cost.most_on_leaf + kMostInRackCost * cost.most_in_rack
                    : kSpineCost * cost.spines + kLeafCost * cost.leaves + kDomainCost * cost.domains +
                          kLeftOverCost * cost.left_over;
  return cost;
}

}  // namespace th::reserve
