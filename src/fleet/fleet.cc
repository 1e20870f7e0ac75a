#include "fleet/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
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

/// For each rack the position of its leaf: leaves by site, then by the rack that mentions them first.
std::vector<LeafIndex> number_leaves(const FleetParts& parts) {
  std::vector<LeafIndex> of_switch(parts.switches.size(), -1);
  std::vector<LeafIndex> of_rack(parts.racks.size());
  LeafIndex next = 0;
  for (size_t rack : sorted_by(parts.racks.size(), [&](size_t i) { return parts.racks[i].site; })) {
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
  num_gpus_.assign(parts_.sites.size() * series_catalogue().size(), 0);
  for (size_t i = 0; i < parts_.hosts.size(); ++i) {
    Host& host = parts_.hosts[i];
    Rack& rack = parts_.racks[static_cast<size_t>(host.rack)];
    const Series& series = series_catalogue()[at(host.series, series_catalogue().size())];
    host.leaf = rack.leaf;
    host.gpus = series.gpus_per_host;
    if (rack.num_hosts++ == 0) rack.first_host = static_cast<HostIndex>(i);
    rack.full_w += series.host_full_w();
    num_gpus_[static_cast<size_t>(rack.site) * series_catalogue().size() +
              static_cast<size_t>(host.series)] += host.gpus;
    bool is_new = host_by_id_.emplace(host.id, static_cast<HostIndex>(i)).second;
    TH_CHECK(is_new);
  }
  for (size_t i = 0; i < parts_.racks.size(); ++i) {
    const Rack& rack = parts_.racks[i];
    TH_CHECK(rack.num_hosts > 0);
    if (static_cast<size_t>(rack.leaf) == leaves_.size()) {
      leaves_.push_back({rack.leaf_switch, rack.site, static_cast<RackIndex>(i), 0, rack.first_host, 0});
    }
    Leaf& leaf = leaves_.back();
    TH_CHECK(leaf.site == rack.site);
    ++leaf.num_racks;
    leaf.num_hosts += rack.num_hosts;
  }
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
  return num_gpus_[static_cast<size_t>(site) * series_catalogue().size() + static_cast<size_t>(series)];
}

Result<Fleet> generate_fleet(const GenerateOptions& options) {
  if (options.num_leaves < 1 || options.racks_per_leaf < 1 || options.hosts_per_rack < 1) {
    return fail(Code::kInvalidArgument, "a generated fleet needs at least one leaf, rack and host");
  }
  TH_TRY(SeriesIndex series, find_series(options.series));
  int64_t full_w = options.hosts_per_rack * series_catalogue()[static_cast<size_t>(series)].host_full_w();
  FleetParts parts;
  parts.name = "generated";
  parts.sites = {{"site"}};
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
