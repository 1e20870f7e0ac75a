#pragma once
// What exists: sites, racks with a power budget, hosts, switches and links. An immutable value; outside of
// this process things are named by string ids, inside by dense indices (0 .. n-1).

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "fleet/series.h"

namespace th::fleet {

using HostIndex = int32_t;
using RackIndex = int32_t;
using SiteIndex = int32_t;
using SwitchIndex = int32_t;
using LeafIndex = int32_t;  // dense over the switches that racks hang on, in the order of the hosts

struct Site {
  std::string id;
};

struct Host {
  std::string id;
  RackIndex rack = 0;
  LeafIndex leaf = 0;
  SeriesIndex series = 0;
  int32_t gpus = 0;  // series_catalogue()[series].gpus_per_host
};

struct Rack {
  std::string id;
  std::string row;  // "" when the site has none
  SiteIndex site = 0;
  SwitchIndex leaf_switch = 0;
  LeafIndex leaf = 0;
  int64_t power_budget_w = 0;  // the least of what its feed gives and its cooling takes away
  HostIndex first_host = 0;    // its hosts are [first_host, first_host + num_hosts)
  int32_t num_hosts = 0;
  int64_t full_w = 0;  // all its hosts in use at once
};

enum class SwitchTier { kLeaf, kSpine, kCore };

struct Switch {
  std::string id;
  SwitchTier tier = SwitchTier::kLeaf;
};

struct Link {
  SwitchIndex a = 0;
  SwitchIndex b = 0;
  int64_t bytes_per_s = 0;  // one way
};

/// One leaf switch and the hosts below it.
struct Leaf {
  SwitchIndex switch_index = 0;
  SiteIndex site = 0;
  RackIndex first_rack = 0;
  int32_t num_racks = 0;
  HostIndex first_host = 0;
  int32_t num_hosts = 0;
};

/// What a reader or a generator hands to Fleet: indices are into these vectors, racks in any order, and
/// Host::leaf, Rack::leaf, first_host, num_hosts, full_w are filled in by Fleet.
struct FleetParts {
  std::string name;
  std::vector<Site> sites;
  std::vector<Rack> racks;
  std::vector<Host> hosts;  // Host::rack says where
  std::vector<Switch> switches;
  std::vector<Link> links;
};

/// Racks are numbered leaf by leaf (leaves by site, then by first mention), hosts rack by rack: the hosts of
/// a rack and those of a leaf are contiguous. Thread: immutable, share it as shared_ptr<const Fleet>.
class Fleet {
 public:
  /// The parts must be sound (parse_fleet and generate_fleet make sound ones); aborts when an index is out of
  /// range.
  explicit Fleet(FleetParts parts);

  const std::string& name() const { return parts_.name; }
  std::span<const Site> sites() const { return parts_.sites; }
  std::span<const Rack> racks() const { return parts_.racks; }
  std::span<const Host> hosts() const { return parts_.hosts; }
  std::span<const Switch> switches() const { return parts_.switches; }
  std::span<const Link> links() const { return parts_.links; }
  std::span<const Leaf> leaves() const { return leaves_; }

  const Host& host(HostIndex i) const { return parts_.hosts[static_cast<size_t>(i)]; }
  const Rack& rack(RackIndex i) const { return parts_.racks[static_cast<size_t>(i)]; }
  const Leaf& leaf(LeafIndex i) const { return leaves_[static_cast<size_t>(i)]; }
  const Series& series_of(HostIndex i) const {
    return series_catalogue()[static_cast<size_t>(host(i).series)];
  }

  /// Errors: kNotFound, with the nearest id. Cost: O(1).
  Result<HostIndex> find_host(std::string_view id) const;
  /// GPUs of one series that exist, in use or not: in all, and in one site. Cost: O(sites), O(1).
  int64_t num_gpus(SeriesIndex series) const;
  int64_t num_gpus(SiteIndex site, SeriesIndex series) const;

 private:
  void fill_in();

  FleetParts parts_;
  std::vector<Leaf> leaves_;
  std::vector<int64_t> num_gpus_;  // [site * series in the catalogue + series]
  std::unordered_map<std::string, HostIndex> host_by_id_;
};

/// Reads a fleet file (docs/fleet.md). `file` is its name in messages.
/// Errors: kInvalidArgument, "desk.yaml:12: sites[0].racks[1].id: ..." for anything that is not a sound
/// fleet.
Result<Fleet> parse_fleet(std::string_view text, std::string_view file);

struct GenerateOptions {
  int32_t num_leaves = 1;
  int32_t racks_per_leaf = 1;
  int32_t hosts_per_rack = 1;
  std::string series = "LOCAL";
  int64_t rack_power_budget_w = 0;  // 0: enough for every host at once
};

/// One site, every leaf linked to one spine; ids l0, l0r0, l0r0h0. Errors: kInvalidArgument (a count < 1),
/// kNotFound (series).
Result<Fleet> generate_fleet(const GenerateOptions& options);

}  // namespace th::fleet
