#pragma once
// The parts of a fleet: plain values, named by dense indices (0 .. n-1).

#include <cstdint>
#include <string>
#include <vector>

#include "fleet/series.h"

namespace th::fleet {

using HostIndex = int32_t;
using RackIndex = int32_t;
using SiteIndex = int32_t;
using SwitchIndex = int32_t;
using LeafIndex = int32_t;   // dense over the switches that racks hang on, in the order of the hosts
using SpineIndex = int32_t;  // dense over the groups of leaves below the same spine, in the same order
using RowIndex = int32_t;

struct Site {
  std::string id;
  int64_t power_budget_w = 0;  // of all its hosts together; 0: no limit
  int64_t full_w = 0;          // all its hosts in use at once
};

/// A row of racks that shares one feed. With a budget it nests with the leaves: it lies below one leaf, or
/// holds whole leaves of one spine.
struct Row {
  std::string id;
  SiteIndex site = 0;
  int64_t power_budget_w = 0;  // 0: no limit
  int64_t full_w = 0;
  std::vector<RackIndex> racks;  // ascending

  bool can_run_short() const { return power_budget_w > 0 && power_budget_w < full_w; }
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
  RowIndex row = -1;  // -1: in none
  SiteIndex site = 0;
  SwitchIndex leaf_switch = 0;
  LeafIndex leaf = 0;
  int64_t power_budget_w = 0;  // the least of what its feed gives and its cooling takes away
  HostIndex first_host = 0;    // its hosts are [first_host, first_host + num_hosts)
  int32_t num_hosts = 0;
  int64_t full_w = 0;  // all its hosts in use at once

  bool can_run_short() const { return power_budget_w < full_w; }
};

enum class SwitchTier { kLeaf, kSpine, kCore };

struct Switch {
  std::string id;
  SwitchTier tier = SwitchTier::kLeaf;
  SwitchIndex spine = -1;  // of a leaf: the spine that it hangs on; -1: that of the whole site
  int32_t count = 1;       // switches that it stands for, such as one a rail
};

struct Link {
  SwitchIndex a = 0;
  SwitchIndex b = 0;
  int64_t bytes_per_s = 0;  // one way
};

/// One leaf switch (or the rail switches of one scalable unit, taken as one) and the hosts below it.
struct Leaf {
  SwitchIndex switch_index = 0;
  SiteIndex site = 0;
  SpineIndex spine = 0;
  RackIndex first_rack = 0;
  int32_t num_racks = 0;
  HostIndex first_host = 0;
  int32_t num_hosts = 0;
  SeriesIndex series = -1;           // of all its hosts; -1: they differ
  bool power_can_run_short = false;  // that of a rack, or of a row below it
};

/// The leaves that reach one another without a core switch.
struct Spine {
  SwitchIndex switch_index = -1;  // -1: no leaf of it names one
  SiteIndex site = 0;
  LeafIndex first_leaf = 0;
  int32_t num_leaves = 0;
};

/// What a reader or a generator hands to Fleet: indices are into these vectors, racks in any order, and
/// Host::leaf, Rack::leaf, first_host, num_hosts, full_w, Row::racks are filled in by Fleet.
struct FleetParts {
  std::string name;
  std::vector<Site> sites;
  std::vector<Row> rows;
  std::vector<Rack> racks;
  std::vector<Host> hosts;  // Host::rack says where
  std::vector<Switch> switches;
  std::vector<Link> links;
};

}  // namespace th::fleet
