#include "control/node_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/live_vms.h"
#include "control/stacks.h"
#include "fleet/series.h"

namespace th::control {
namespace {

constexpr int64_t kCheckTimeoutNs = kMinute;
constexpr const char* kMebibytes = "4";  // of one all-reduce

/// Shares of one machine have no accelerators of NVIDIA's.
int64_t nvidia_gpus(const std::string& series, int64_t gpus) { return series == "LOCAL" ? 0 : gpus; }

/// {"event":"all_reduce","bytes_per_s":1e9}; 0 when it failed.
int64_t speed_in(const CheckOutcome& outcome) {
  if (!outcome.ok) return 0;
  const auto json = parse_json(outcome.line, "line of an all-reduce");
  auto speed = json ? get_int(*json, "bytes_per_s") : fail(json.error());
  return speed ? *speed : 0;
}

std::string speed_text(int64_t bytes_per_s) {
  return fmt::format("{:.3g} MB/s", static_cast<double>(bytes_per_s) / 1e6);
}

}  // namespace

void NodeChecks::dialled_in(const ledger::Vm& vm, const std::string& boot_id, const std::string& address) {
  const ledger::Slice& slice = core_.state().slices.at(vm.slice);
  const auto stack = find_stack(core_.state(), slice.requested.stack);
  const std::string script =
      stack ? check_script(*stack, nvidia_gpus(slice.terms.series, vm.gpus)) : std::string();
  if (script.empty()) {
    core_.stage(ledger::NodeValidated{vm.id, boot_id, address});
    return;
  }
  const std::string name = vm.id, key = name + " " + boot_id;
  if (!looking_.insert(key).second) return;
  launch::RankPlace place = place_on(vm);
  place.address = address;
  gangs.run({"sh", "-c", script}, stack->environment, {place}, kCheckTimeoutNs,
            [this, name, key, boot_id, address, id = stack->id()](const CheckOutcome& outcome) {
              looking_.erase(key);
              const auto found = core_.state().vms.find(name);
              const bool waits =
                  found != core_.state().vms.end() && (found->second.state == ledger::VmState::kUp ||
                                                       found->second.state == ledger::VmState::kReady);
              if (!waits || outcome.lost) return;  // one that is still there dials in again
              if (outcome.ok) {
                core_.stage(ledger::NodeValidated{name, boot_id, address});
              } else if (on_bad) {
                on_bad(name, fmt::format("it does not match stack {}: {}", id, outcome.reason));
              }
            });
}

NodeChecks::Fabric NodeChecks::fabric(const ledger::Slice& slice) {
  const std::string& id = slice.terms.slice;
  if (core_.policy().min_all_reduce == 0) return {Fabric::State::kPassed, {}, {}};
  std::vector<std::string> vms;
  for (const ledger::Share& share : slice.terms.hosts) {
    if (const ledger::Vm* vm = live_vm(core_.state(), slice, share.host)) vms.push_back(vm->id);
  }
  if (vms.size() < 2) return {Fabric::State::kPassed, {}, {}};
  auto found = measuring_.find(id);
  if (found == measuring_.end() || found->second.vms != vms) {
    found = measuring_.insert_or_assign(id, Measuring{next_serial_++, vms, Bisection(vms), {}, {}}).first;
    measure(id, found->second);
  }
  Measuring& measuring = found->second;
  if (!measuring.bisection.round().empty()) return {};
  Fabric out;
  out.state = measuring.bisection.passed() ? Fabric::State::kPassed : Fabric::State::kSlow;
  out.slow_vms = measuring.bisection.slow();
  out.reason = fmt::format("an all-reduce over {} nodes {}, want at least {}", vms.size(), measuring.text,
                           speed_text(core_.policy().min_all_reduce));
  log_info("slice {}: {}{}", slice.terms.name, out.reason,
           out.slow_vms.empty() ? "" : "; slow: " + join(out.slow_vms, ", "));
  measuring_.erase(id);
  return out;
}

void NodeChecks::measure(const std::string& slice, Measuring& measuring) {
  const auto parts = measuring.bisection.round();
  measuring.bytes_per_s.assign(parts.size(), std::nullopt);
  for (size_t part = 0; part < parts.size(); ++part) {
    std::vector<launch::RankPlace> places;
    for (const std::string& vm : parts[part]) places.push_back(place_on(core_.state().vms.at(vm)));
    gangs.run({"th-train", "all-reduce", "--mib", kMebibytes}, {}, std::move(places), kCheckTimeoutNs,
              [this, slice, serial = measuring.serial, part](const CheckOutcome& outcome) {
                measured(slice, serial, part, outcome);
              });
  }
}

void NodeChecks::measured(const std::string& slice, int64_t serial, size_t part,
                          const CheckOutcome& outcome) {
  const auto found = measuring_.find(slice);
  if (found == measuring_.end() || found->second.serial != serial) return;
  Measuring& measuring = found->second;
  if (outcome.lost) {
    measuring_.erase(found);  // begins anew with whoever takes the lost one's place
    return;
  }
  const int64_t speed = speed_in(outcome);
  measuring.bytes_per_s[part] = speed;
  if (measuring.text.empty()) {
    measuring.text = outcome.ok ? fmt::format("moves {} a rank", speed_text(speed))
                                : fmt::format("failed ({})", outcome.reason);
  }
  if (!std::ranges::all_of(measuring.bytes_per_s, [](const auto& value) { return value.has_value(); }))
    return;
  std::vector<bool> fast;
  for (const auto& value : measuring.bytes_per_s) fast.push_back(*value >= core_.policy().min_all_reduce);
  measuring.bisection.take(fast);
  measure(slice, measuring);
}

}  // namespace th::control
