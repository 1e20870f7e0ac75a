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
    TH_RETURN_IF_ERROR(check_spines());
    TH_RETURN_IF_ERROR(read_sites(root));
    TH_RETURN_IF_ERROR(check_reachable());
    TH_RETURN_IF_ERROR(check_rows());
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
    TH_TRY(auto list, root.maps("switches", {"id", "tier", "spine", "count"}));
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
      TH_TRY(int64_t count, config.integer_or("count", 1, {.min = 1, .max = 65'536}));
      entry.count = static_cast<int32_t>(count);
      if (config.has("spine") && entry.tier != SwitchTier::kLeaf) {
        return config.bad("spine", "only a switch of tier leaf hangs on a spine");
      }
      parts_.switches.push_back(std::move(entry));
      switch_configs_.push_back(config);
    }
    for (size_t i = 0; i < switch_configs_.size(); ++i) {
      if (!switch_configs_[i].has("spine")) continue;
      TH_TRY(SwitchIndex spine, find_switch(switch_configs_[i], "spine"));
      if (parts_.switches[static_cast<size_t>(spine)].tier != SwitchTier::kSpine) {
        return switch_configs_[i].bad("spine", "want a switch of tier spine, and this is not one");
      }
      parts_.switches[i].spine = spine;
    }
    return {};
  }

  Status check_spines() const {
    for (size_t i = 0; i < parts_.switches.size(); ++i) {
      auto leaf = static_cast<SwitchIndex>(i);
      SwitchIndex spine = parts_.switches[i].spine;
      auto joins = [&](const Link& link) {
        return (link.a == leaf && link.b == spine) || (link.a == spine && link.b == leaf);
      };
      if (spine < 0 || std::ranges::any_of(parts_.links, joins)) continue;
      return switch_configs_[i].bad("spine", fmt::format("no link leads to '{}': add one under links",
                                                         parts_.switches[static_cast<size_t>(spine)].id));
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
    TH_TRY(auto list, root.maps("sites", {"id", "power_budget_w", "racks", "rows"}));
    if (list.empty()) return root.bad("sites", "a fleet has at least one site");
    for (const Config& config : list) {
      auto site = static_cast<SiteIndex>(parts_.sites.size());
      TH_TRY(std::string id, new_id(config, "site", site_ids_, parts_.sites.size()));
      TH_TRY(int64_t budget_w, read_budget(config));
      parts_.sites.push_back({.id = std::move(id), .power_budget_w = budget_w});
      size_t racks_before = parts_.racks.size();
      TH_RETURN_IF_ERROR(read_racks(config, site, -1));
      TH_TRY(auto rows, config.maps("rows", {"id", "power_budget_w", "racks"}));
      for (const Config& row : rows) {
        auto row_index = static_cast<RowIndex>(parts_.rows.size());
        Row entry;
        entry.site = site;
        TH_TRY(entry.id, new_id(row, "row", row_ids_, row_ids_.size()));
        TH_TRY(entry.power_budget_w, read_budget(row));
        parts_.rows.push_back(std::move(entry));
        row_configs_.push_back(row);
        TH_RETURN_IF_ERROR(read_racks(row, site, row_index));
      }
      if (parts_.racks.size() == racks_before) return config.bad("racks", "a site has at least one rack");
    }
    return {};
  }

  /// Of a row or a site; 0 without one.
  static Result<int64_t> read_budget(const Config& config) {
    if (!config.has("power_budget_w")) return 0;
    return config.integer("power_budget_w", {.min = 1, .max = kMaxWatts});
  }

  Status read_racks(const Config& parent, SiteIndex site, RowIndex row) {
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

  /// Places are counted level by level, which needs levels that nest.
  Status check_rows() const {
    std::vector<int32_t> leaf_of, row_of, spine_of;
    for (const Rack& rack : parts_.racks) {
      leaf_of.push_back(rack.leaf_switch);
      row_of.push_back(rack.row);
    }
    for (const Switch& entry : parts_.switches) spine_of.push_back(entry.spine);
    for (size_t i = 0; i < parts_.rows.size(); ++i) {
      if (parts_.rows[i].power_budget_w == 0) continue;
      std::string problem = row_nesting_problem(static_cast<RowIndex>(i), leaf_of, row_of, spine_of);
      if (problem.empty()) continue;
      return row_configs_[i].bad(
          "power_budget_w",
          problem + "; a row with a budget lies below one leaf, or holds whole leaves of one spine");
    }
    return {};
  }

  FleetParts parts_;
  Ids switch_ids_, site_ids_, row_ids_, rack_ids_, host_ids_;
  std::map<SwitchIndex, SiteIndex> site_of_leaf_;
  std::vector<Config> switch_configs_, row_configs_, rack_configs_;
  std::vector<int32_t> islands_;  // a switch one nearer to the root of its island
};

}  // namespace

Result<Fleet> parse_fleet(std::string_view text, std::string_view file) { return Reader().read(text, file); }

}  // namespace th::fleet
