#include "control/fleet_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "control/views.h"

namespace th::control {
namespace {

std::string switch_id(const fleet::Fleet& fleet, fleet::SwitchIndex index) {
  return index < 0 ? "" : fleet.switches()[static_cast<size_t>(index)].id;
}

Json rack_place(const fleet::Fleet& fleet, const fleet::Rack& rack) {
  const fleet::Leaf& leaf = fleet.leaf(rack.leaf);
  return {{"id", rack.id},
          {"leaf", switch_id(fleet, rack.leaf_switch)},
          {"spine", switch_id(fleet, fleet.spines()[static_cast<size_t>(leaf.spine)].switch_index)},
          {"site", fleet.sites()[static_cast<size_t>(rack.site)].id},
          {"row", rack.row < 0 ? "" : fleet.row(rack.row).id},
          {"power_budget_w", rack.power_budget_w}};
}

char digit(int count) {
  const int d = std::min(count, 35);
  return static_cast<char>(d < 10 ? '0' + d : 'a' + d - 10);
}

char letter_of(const ledger::Vm& vm) {
  if (vm.state == ledger::VmState::kReady) return 'u';
  return vm.state == ledger::VmState::kDown ? 'x' : 's';
}

/// By host: what the nodes of live slices say of it; where there are two, the one that is there.
std::vector<char> node_letters(const Controller& c) {
  const fleet::Fleet& fleet = c.core.fleet();
  std::vector<char> out(fleet.hosts().size(), 's');
  for (const std::string& id : c.core.active_slices()) {
    for (const std::string& name : c.core.state().slices.at(id).vms) {
      const ledger::Vm& vm = c.core.state().vms.at(name);
      const auto host = fleet.find_host(vm.host);
      if (vm.state == ledger::VmState::kDeleted || !host) continue;
      char& at = out[static_cast<size_t>(*host)];
      if (at != 'u') at = letter_of(vm);
    }
  }
  return out;
}

std::string fleet_use_text(const Controller& c) {
  const fleet::Fleet& fleet = c.core.fleet();
  const reserve::Snapshot& snapshot = c.core.snapshot();
  const int64_t now_ns = c.core.now_ns();
  std::string hosts = std::string(fleet.hosts().size(), 'f'), gpus = hosts;
  const std::vector<char> nodes = node_letters(c);
  int64_t num_gpus = 0, used = 0;
  for (size_t i = 0; i < hosts.size(); ++i) {
    const reserve::HostUse use = snapshot.host_use(static_cast<fleet::HostIndex>(i), now_ns);
    const int busy = std::popcount(use.busy);
    hosts[i] = use.out_of_use ? 'd' : busy > 0 ? nodes[i] : use.is_lemon ? 'l' : 'f';
    gpus[i] = digit(busy);
    used += busy, num_gpus += fleet.host(static_cast<fleet::HostIndex>(i)).gpus;
  }
  std::string racks;
  for (size_t i = 0; i < fleet.racks().size(); ++i)
    fmt::format_to(std::back_inserter(racks), "{}{}", i == 0 ? "" : ",",
                   snapshot.rack_power_w(static_cast<fleet::RackIndex>(i), now_ns));
  return fmt::format(
      R"({{"seq":{},"time_ns":{},"simulated":{},"gpus":{},"gpus_used":{},"hosts":"{}","gpus_by_host":"{}",)"
      R"("rack_power_w":[{}]}})",
      c.core.state().seq, now_ns, c.core.is_simulated(), num_gpus, used, hosts, gpus, racks);
}

}  // namespace

std::string fleet_map_text(const Controller& c) {
  const fleet::Fleet& fleet = c.core.fleet();
  Json racks = Json::array();
  int64_t gpus = 0;
  for (const fleet::Rack& rack : fleet.racks()) {
    Json hosts = Json::array();
    for (int32_t h = 0; h < rack.num_hosts; ++h) {
      hosts.push_back(fleet.host(rack.first_host + h).id);
      gpus += fleet.host(rack.first_host + h).gpus;
    }
    Json& out = racks.emplace_back(rack_place(fleet, rack));
    if (rack.num_hosts > 0) {
      out["series"] = fleet.series_of(rack.first_host).name;
      out["gpus_per_host"] = fleet.host(rack.first_host).gpus;
    }
    out["hosts"] = std::move(hosts);
  }
  return dump_json({{"name", fleet.name()}, {"gpus", gpus}, {"racks", std::move(racks)}});
}

std::shared_ptr<const std::string> FleetUse::text(const Controller& c) {
  const int64_t second = c.core.now_ns() / kSecond;
  if (!text_ || version_ != c.core.version() || second_ != second) {
    text_ = std::make_shared<const std::string>(fleet_use_text(c));
    version_ = c.core.version(), second_ = second;
  }
  return text_;
}

Result<Json> host_view(const Controller& c, const std::string& host,
                       const std::function<bool(const ledger::Owner&)>& may_see) {
  const fleet::Fleet& fleet = c.core.fleet();
  TH_TRY(const fleet::HostIndex index, fleet.find_host(host));
  const fleet::Rack& rack = fleet.rack(fleet.host(index).rack);
  const reserve::HostUse use = c.core.snapshot().host_use(index, c.core.now_ns());
  Json gpus = Json::array();
  for (int g = 0; g < fleet.host(index).gpus; ++g) {
    gpus.push_back({{"gpu", g},
                    {"state", (use.busy >> g & 1) != 0 ? "used" : "free"},
                    {"slice", nullptr},
                    {"jobs", Json::array()}});
  }
  Json out = {{"id", host},
              {"series", fleet.series_of(index).name},
              {"state", use.out_of_use ? "drained"
                        : use.busy     ? "used"
                                       : "free"},
              {"reason", use.out_of_use.value_or("")},
              {"lemon", use.is_lemon},
              {"rack", rack_place(fleet, rack)},
              {"rack_power_used_w", c.core.snapshot().rack_power_w(fleet.host(index).rack, c.core.now_ns())},
              {"node", nullptr}};
  for (const std::string& id : c.core.active_slices()) {
    const ledger::Slice& slice = c.core.state().slices.at(id);
    const auto share = std::ranges::find(slice.terms.hosts, host, &ledger::Share::host);
    if (share == slice.terms.hosts.end() || !may_see(slice.owner)) continue;
    const ledger::Vm* vm = live_vm(c.core.state(), slice, host);
    if (vm) out["node"] = node_json(c, *vm);
    for (int64_t g = 0; g < share->gpus && g < static_cast<int64_t>(gpus.size()); ++g)
      gpus[static_cast<size_t>(g)]["slice"] = slice.terms.name;
    for (const auto& [job_id, job] : c.core.active_jobs()) {
      if (!vm || job->slice != id || !job->attempt_open || !may_see(job->owner)) continue;
      for (const ledger::Rank& rank : job->ranks) {
        if (rank.place.vm != vm->id) continue;
        for (const int64_t g : rank.place.gpus) {
          if (g < static_cast<int64_t>(gpus.size())) gpus[static_cast<size_t>(g)]["jobs"].push_back(job_id);
        }
      }
    }
  }
  out["gpus"] = std::move(gpus);
  return out;
}

}  // namespace th::control
