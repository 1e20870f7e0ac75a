#pragma once
// The fleet that the tests of the queue run on.

#include <memory>
#include <string>
#include <utility>

#include "fleet/fleet.h"

namespace th::reserve {

/// One leaf of `hosts` hosts of two GPUs (LOCAL), with power for all of them.
inline std::shared_ptr<const fleet::Fleet> one_leaf_fleet(int hosts) {
  fleet::FleetParts parts;
  parts.name = "small";
  parts.sites = {{"s"}};
  parts.switches.push_back({"l0", fleet::SwitchTier::kLeaf});
  fleet::Rack rack;
  rack.id = "r0", rack.power_budget_w = 1'000'000;
  parts.racks.push_back(rack);
  for (int h = 0; h < hosts; ++h) {
    fleet::Host host;
    host.id = "h" + std::to_string(h);
    parts.hosts.push_back(host);
  }
  return std::make_shared<const fleet::Fleet>(std::move(parts));
}

}  // namespace th::reserve
