#include "fleet/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "base/text.h"

namespace th::fleet {
namespace {

template <class Index>
size_t at(Index index, size_t size) {
  TH_CHECK(index >= 0 && static_cast<size_t>(index) < size);
  return static_cast<size_t>(index);
}

/// new position → old position, by ascending key, stable.
template <class Key>
std::vector<size_t> sorted_by(size_t size, Key key) {
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, key);
  return order;
}

/// For each rack the position of its leaf: leaves by site, then by spine and by the rack that mentions them
/// first.
std::vector<LeafIndex> number_leaves(const FleetParts& parts) {
  std::vector<LeafIndex> of_switch(parts.switches.size(), -1);
  std::vector<LeafIndex> of_rack(parts.racks.size());
  std::map<std::pair<SiteIndex, SwitchIndex>, size_t> spines;  // the rack that mentions it first
  auto spine_of = [&](size_t i) {
    const Rack& rack = parts.racks[i];
    return std::pair(rack.site, parts.switches[at(rack.leaf_switch, parts.switches.size())].spine);
  };
  for (size_t i = 0; i < parts.racks.size(); ++i) spines.emplace(spine_of(i), i);
  auto place_of = [&](size_t i) { return std::pair(parts.racks[i].site, spines.at(spine_of(i))); };
  LeafIndex next = 0;
  for (size_t rack : sorted_by(parts.racks.size(), place_of)) {
    LeafIndex& leaf = of_switch[at(parts.racks[rack].leaf_switch, parts.switches.size())];
    if (leaf < 0) leaf = next++;
    of_rack[rack] = leaf;
  }
  return of_rack;
}

}  // namespace

Fleet::Fleet(FleetParts parts) : parts_(std::move(parts)) {
  std::vector<LeafIndex> leaf_of_rack = number_leaves(parts_);
  std::vector<RackIndex> new_rack(parts_.racks.size());
  std::vector<Rack> racks;
  for (size_t old : sorted_by(parts_.racks.size(), [&](size_t i) { return leaf_of_rack[i]; })) {
    new_rack[old] = static_cast<RackIndex>(racks.size());
    racks.push_back(std::move(parts_.racks[old]));
    racks.back().leaf = leaf_of_rack[old];
    at(racks.back().site, parts_.sites.size());
    if (racks.back().row >= 0) at(racks.back().row, parts_.rows.size());
  }
  auto rack_of = [&](size_t i) { return new_rack[at(parts_.hosts[i].rack, new_rack.size())]; };
  std::vector<Host> hosts;
  for (size_t old : sorted_by(parts_.hosts.size(), rack_of)) {
    RackIndex rack = rack_of(old);
    hosts.push_back(std::move(parts_.hosts[old]));
    hosts.back().rack = rack;
  }
  parts_.racks = std::move(racks);
  parts_.hosts = std::move(hosts);
  fill_in();
}

void Fleet::fill_in() {
  for (Rack& rack : parts_.racks) rack.num_hosts = 0, rack.full_w = 0;
  num_gpus_.assign(parts_.sites.size() * kNumSeries, 0);
  for (size_t i = 0; i < parts_.hosts.size(); ++i) {
    Host& host = parts_.hosts[i];
    Rack& rack = parts_.racks[static_cast<size_t>(host.rack)];
    const Series& series = series_catalogue()[at(host.series, kNumSeries)];
    host.leaf = rack.leaf;
    host.gpus = series.gpus_per_host;
    if (rack.num_hosts++ == 0) rack.first_host = static_cast<HostIndex>(i);
    rack.full_w += series.host_full_w();
    num_gpus_[static_cast<size_t>(rack.site) * kNumSeries + static_cast<size_t>(host.series)] += host.gpus;
    bool is_new = host_by_id_.emplace(host.id, static_cast<HostIndex>(i)).second;
    TH_CHECK(is_new);
  }
  for (size_t s = 0; s < kNumSeries; ++s) {
    if (num_gpus(static_cast<SeriesIndex>(s)) > 0) series_.push_back(static_cast<SeriesIndex>(s));
  }
  fill_in_leaves();
  fill_in_rows();
}

void Fleet::fill_in_leaves() {
  for (size_t i = 0; i < parts_.racks.size(); ++i) {
    const Rack& rack = parts_.racks[i];
    TH_CHECK(rack.num_hosts > 0);
    if (static_cast<size_t>(rack.leaf) == leaves_.size()) {
      SwitchIndex spine = parts_.switches[static_cast<size_t>(rack.leaf_switch)].spine;
      if (spines_.empty() || spines_.back().site != rack.site || spines_.back().switch_index != spine) {
        spines_.push_back({spine, rack.site, rack.leaf, 0});
      }
      ++spines_.back().num_leaves;
      leaves_.push_back({rack.leaf_switch, rack.site, static_cast<SpineIndex>(spines_.size() - 1),
                         static_cast<RackIndex>(i), 0, rack.first_host, 0, host(rack.first_host).series,
                         false});
    }
    Leaf& leaf = leaves_.back();
    leaf.power_can_run_short |= rack.can_run_short();
    for (HostIndex h = rack.first_host; h < rack.first_host + rack.num_hosts; ++h) {
      if (host(h).series != leaf.series) leaf.series = -1;
    }
    TH_CHECK(leaf.site == rack.site);
    ++leaf.num_racks;
    leaf.num_hosts += rack.num_hosts;
  }
}

void Fleet::fill_in_rows() {
  for (Site& site : parts_.sites) site.full_w = 0;
  for (Row& row : parts_.rows) row.full_w = 0, row.racks.clear();
  std::vector<int32_t> leaf_of, row_of, spine_of;
  for (size_t i = 0; i < parts_.racks.size(); ++i) {
    const Rack& rack = parts_.racks[i];
    leaf_of.push_back(rack.leaf);
    row_of.push_back(rack.row);
    parts_.sites[static_cast<size_t>(rack.site)].full_w += rack.full_w;
    if (rack.row < 0) continue;
    Row& row = parts_.rows[static_cast<size_t>(rack.row)];
    row.site = rack.site;
    row.full_w += rack.full_w;
    row.racks.push_back(static_cast<RackIndex>(i));
  }
  for (const Leaf& leaf : leaves_) spine_of.push_back(leaf.spine);
  shared_row_.assign(leaves_.size(), -1);
  for (size_t i = 0; i < parts_.rows.size(); ++i) {
    const Row& row = parts_.rows[i];
    if (row.power_budget_w == 0 || row.racks.empty()) continue;
    TH_CHECK(row_nesting_problem(static_cast<RowIndex>(i), leaf_of, row_of, spine_of).empty());
    bool is_shared = rack(row.racks.front()).leaf != rack(row.racks.back()).leaf;
    for (RackIndex r : row.racks) {
      if (!row.can_run_short()) break;
      auto leaf = static_cast<size_t>(rack(r).leaf);
      if (is_shared) {
        shared_row_[leaf] = static_cast<RowIndex>(i);
        has_shared_rows_ = true;
      } else {
        leaves_[leaf].power_can_run_short = true;
      }
    }
  }
}

std::string row_nesting_problem(RowIndex row, std::span<const int32_t> leaf_of,
                                std::span<const int32_t> row_of, std::span<const int32_t> spine_of) {
  std::set<int32_t> leaves, spines;
  for (size_t rack = 0; rack < row_of.size(); ++rack) {
    if (row_of[rack] == row) leaves.insert(leaf_of[rack]);
  }
  for (int32_t leaf : leaves) spines.insert(spine_of[static_cast<size_t>(leaf)]);
  if (leaves.size() < 2) return "";
  if (spines.size() > 1) return "the racks of this row hang on leaves of more than one spine";
  for (size_t rack = 0; rack < row_of.size(); ++rack) {
    if (row_of[rack] != row && leaves.contains(leaf_of[rack])) {
      return "this row has racks of several leaves, and one of those has racks elsewhere";
    }
  }
  return "";
}

Result<HostIndex> Fleet::find_host(std::string_view id) const {
  auto found = host_by_id_.find(std::string(id));
  if (found != host_by_id_.end()) return found->second;
  std::vector<std::string> ids;
  for (const Host& host : parts_.hosts) ids.push_back(host.id);
  return fail(Code::kNotFound,
              fmt::format("host '{}' is not in fleet '{}'{}", id, parts_.name, did_you_mean(id, ids)));
}

int64_t Fleet::num_gpus(SeriesIndex series) const {
  int64_t gpus = 0;
  for (size_t site = 0; site < parts_.sites.size(); ++site)
    gpus += num_gpus(static_cast<SiteIndex>(site), series);
  return gpus;
}

int64_t Fleet::num_gpus(SiteIndex site, SeriesIndex series) const {
  return num_gpus_[static_cast<size_t>(site) * kNumSeries + static_cast<size_t>(series)];
}

Result<Fleet> generate_fleet(const GenerateOptions& options) {
  if (options.num_leaves < 1 || options.racks_per_leaf < 1 || options.hosts_per_rack < 1) {
    return fail(Code::kInvalidArgument, "a generated fleet needs at least one leaf, rack and host");
  }
  TH_TRY(SeriesIndex series, find_series(options.series));
  int64_t full_w = options.hosts_per_rack * series_catalogue()[static_cast<size_t>(series)].host_full_w();
  FleetParts parts;
  parts.name = "generated";
  parts.sites.push_back({"site"});
  parts.switches.push_back({"spine", SwitchTier::kSpine});
  for (int32_t l = 0; l < options.num_leaves; ++l) {
    auto leaf = static_cast<SwitchIndex>(parts.switches.size());
    parts.switches.push_back({fmt::format("l{}", l), SwitchTier::kLeaf});
    parts.links.push_back({leaf, 0, 50'000'000'000});
    for (int32_t r = 0; r < options.racks_per_leaf; ++r) {
      auto rack_index = static_cast<RackIndex>(parts.racks.size());
      Rack rack;
      rack.id = fmt::format("l{}r{}", l, r);
      rack.leaf_switch = leaf;
      rack.power_budget_w = options.rack_power_budget_w > 0 ? options.rack_power_budget_w : full_w;
      parts.racks.push_back(std::move(rack));
      for (int32_t h = 0; h < options.hosts_per_rack; ++h) {
        Host host;
        host.id = fmt::format("l{}r{}h{}", l, r, h);
        host.rack = rack_index;
        host.series = series;
        parts.hosts.push_back(std::move(host));
      }
    }
  }
  return Fleet(std::move(parts));
}

}  // namespace th::fleet
