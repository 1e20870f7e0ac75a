#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/config.h"
#include "base/text.h"
#include "fleet/fleet.h"

namespace th::fleet {
namespace {

constexpr int64_t kMaxWatts = 1'000'000'000;
constexpr int64_t kMaxGbitPerS = 1'000'000;

/// Reads one fleet file into parts; every check here names its line.
class Reader {
 public:
  Result<Fleet> read(std::string_view text, std::string_view file) {
    TH_TRY(Config root, Config::parse(text, file, {"name", "sites", "switches", "links"}));
    TH_TRY(parts_.name, root.string("name"));
    if (auto status = check_name(parts_.name, "a fleet's name"); !status) {
      return root.bad("name", status.error().message);
    }
    TH_RETURN_IF_ERROR(read_switches(root));
    TH_RETURN_IF_ERROR(read_links(root));
    TH_RETURN_IF_ERROR(read_sites(root));
    TH_RETURN_IF_ERROR(check_reachable());
    return Fleet(std::move(parts_));
  }

 private:
  using Ids = std::map<std::string, int32_t>;

  /// Reads `key` as an id, and enters it into `ids` with `index`.
  static Result<std::string> new_id(const Config& config, const char* what, Ids& ids, size_t index) {
    TH_TRY(std::string id, config.string("id"));
    if (auto status = check_name(id, what); !status) return config.bad("id", status.error().message);
    if (!ids.emplace(id, static_cast<int32_t>(index)).second) {
      return config.bad("id", fmt::format("'{}' is taken by another {}: ids are unique", id, what));
    }
    return id;
  }

  Result<SwitchIndex> find_switch(const Config& config, const char* key) const {
    TH_TRY(std::string id, config.string(key));
    auto found = switch_ids_.find(id);
    if (found != switch_ids_.end()) return found->second;
    std::vector<std::string> known;
    for (const auto& entry : switch_ids_) known.push_back(entry.first);
    return config.bad(key, fmt::format("there is no switch '{}'{}", id, did_you_mean(id, known)));
  }

  Status read_switches(const Config& root) {
    TH_TRY(auto list, root.maps("switches", {"id", "tier"}));
    for (const Config& config : list) {
      Switch entry;
      TH_TRY(entry.id, new_id(config, "switch", switch_ids_, parts_.switches.size()));
      TH_TRY(std::string tier, config.string("tier"));
      const std::vector<std::string> tiers = {"leaf", "spine", "core"};
      auto found = std::find(tiers.begin(), tiers.end(), tier);
      if (found == tiers.end()) {
        return config.bad("tier", fmt::format("want leaf, spine or core, got '{}'", tier));
      }
      entry.tier = static_cast<SwitchTier>(found - tiers.begin());
      parts_.switches.push_back(std::move(entry));
    }
    return {};
  }

  Status read_links(const Config& root) {
    TH_TRY(auto list, root.maps("links", {"from", "to", "gbit_per_s"}));
    for (const Config& config : list) {
      Link link;
      TH_TRY(link.a, find_switch(config, "from"));
      TH_TRY(link.b, find_switch(config, "to"));
      if (link.a == link.b) return config.bad("to", "a switch is not linked to itself");
      TH_TRY(int64_t gbit_per_s, config.integer("gbit_per_s", {.min = 1, .max = kMaxGbitPerS}));
      link.bytes_per_s = gbit_per_s * 125'000'000;
      parts_.links.push_back(link);
    }
    return {};
  }

  Status read_sites(const Config& root) {
    TH_TRY(auto list, root.maps("sites", {"id", "racks", "rows"}));
    if (list.empty()) return root.bad("sites", "a fleet has at least one site");
    for (const Config& config : list) {
      auto site = static_cast<SiteIndex>(parts_.sites.size());
      TH_TRY(std::string id, new_id(config, "site", site_ids_, parts_.sites.size()));
      parts_.sites.push_back({std::move(id)});
      size_t racks_before = parts_.racks.size();
      TH_RETURN_IF_ERROR(read_racks(config, site, ""));
      TH_TRY(auto rows, config.maps("rows", {"id", "racks"}));
      for (const Config& row : rows) {
        TH_TRY(std::string row_id, new_id(row, "row", row_ids_, row_ids_.size()));
        TH_RETURN_IF_ERROR(read_racks(row, site, row_id));
      }
      if (parts_.racks.size() == racks_before) return config.bad("racks", "a site has at least one rack");
    }
    return {};
  }

  Status read_racks(const Config& parent, SiteIndex site, const std::string& row) {
    TH_TRY(auto list, parent.maps("racks", {"id", "power_budget_w", "cooling_w", "leaf", "hosts"}));
    for (const Config& config : list) {
      Rack rack;
      rack.site = site;
      rack.row = row;
      TH_TRY(rack.id, new_id(config, "rack", rack_ids_, parts_.racks.size()));
      TH_TRY(int64_t feed_w, config.integer("power_budget_w", {.min = 1, .max = kMaxWatts}));
      TH_TRY(int64_t cooling_w, config.integer_or("cooling_w", feed_w, {.min = 1, .max = kMaxWatts}));
      rack.power_budget_w = std::min(feed_w, cooling_w);
      TH_TRY(rack.leaf_switch, find_switch(config, "leaf"));
      if (parts_.switches[static_cast<size_t>(rack.leaf_switch)].tier != SwitchTier::kLeaf) {
        return config.bad("leaf", "hosts hang on a switch of tier leaf, and this is not one");
      }
      auto [known, is_new] = site_of_leaf_.emplace(rack.leaf_switch, site);
      if (!is_new && known->second != site) return config.bad("leaf", "this leaf has racks of another site");
      TH_RETURN_IF_ERROR(read_hosts(config));
      parts_.racks.push_back(std::move(rack));
      rack_configs_.push_back(config);
    }
    return {};
  }

  Status read_hosts(const Config& parent) {
    TH_TRY(auto list, parent.maps("hosts", {"id", "series"}));
    if (list.empty()) return parent.bad("hosts", "a rack has at least one host");
    for (const Config& config : list) {
      Host host;
      host.rack = static_cast<RackIndex>(parts_.racks.size());
      TH_TRY(host.id, new_id(config, "host", host_ids_, parts_.hosts.size()));
      TH_TRY(std::string series, config.string("series"));
      auto found = find_series(series);
      if (!found) return config.bad("series", found.error().message);
      host.series = *found;
      parts_.hosts.push_back(std::move(host));
    }
    return {};
  }

  int32_t island(int32_t i) {
    auto up = [&](int32_t of) -> int32_t& { return islands_[static_cast<size_t>(of)]; };
    while (up(i) != i) i = up(i) = up(up(i));
    return i;
  }

  /// A gang may lie on any hosts of a site, so its leaves must all be linked with one another.
  Status check_reachable() {
    for (size_t i = 0; i < parts_.switches.size(); ++i) islands_.push_back(static_cast<int32_t>(i));
    for (const Link& link : parts_.links) islands_[static_cast<size_t>(island(link.a))] = island(link.b);
    std::map<SiteIndex, SwitchIndex> first_leaf;
    for (size_t i = 0; i < parts_.racks.size(); ++i) {
      const Rack& rack = parts_.racks[i];
      SwitchIndex first = first_leaf.emplace(rack.site, rack.leaf_switch).first->second;
      if (island(first) == island(rack.leaf_switch)) continue;
      auto id = [&](SwitchIndex s) { return parts_.switches[static_cast<size_t>(s)].id; };
      return rack_configs_[i].bad(
          "leaf",
          fmt::format(
              "the hosts of rack '{}' cannot be reached: no links lead from switch '{}' to '{}', where "
              "other racks of the site are",
              rack.id, id(rack.leaf_switch), id(first)));
    }
    return {};
  }

  FleetParts parts_;
  Ids switch_ids_, site_ids_, row_ids_, rack_ids_, host_ids_;
  std::map<SwitchIndex, SiteIndex> site_of_leaf_;
  std::vector<Config> rack_configs_;
  std::vector<int32_t> islands_;  // a switch one nearer to the root of its island
};

}  // namespace

Result<Fleet> parse_fleet(std::string_view text, std::string_view file) { return Reader().read(text, file); }

}  // namespace th::fleet
