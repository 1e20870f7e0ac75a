#include "sim/world/chaos.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/env.h"
#include "base/units.h"
#include "sim/log_hash.h"
#include "sim/world/round.h"

namespace th::sim {
namespace {

constexpr const char* kPlants[] = {"",      "double-lease",     "half-gang",    "lost-ack",      "leak-vm",
                                   "quota", "lost-reservation", "double-meter", "orphan-replica"};

Status check(const ChaosOptions& options) {
  if (options.steps < 1 || options.steps > 1'000'000'000) {
    return fail(Code::kInvalidArgument, "steps: want 1 to 1,000,000,000");
  }
  if (options.steps_per_round < 100)
    return fail(Code::kInvalidArgument, "steps-per-round: want at least 100");
  for (const char* plant : kPlants) {
    if (options.plant == plant) return {};
  }
  return fail(Code::kInvalidArgument,
              "break: want double-lease, half-gang, lost-ack, leak-vm, quota, lost-reservation, double-meter "
              "or orphan-replica");
}

}  // namespace

void count(const ledger::Event& event, ChaosResult& result) {
  ++result.events;
  result.jobs += std::holds_alternative<ledger::JobSubmitted>(event);
  result.preemptions += std::holds_alternative<ledger::JobPreempted>(event);
  result.resizes += std::holds_alternative<ledger::SliceResized>(event);
  result.reservations += std::holds_alternative<ledger::ReservationCreated>(event);
  result.deployments += std::holds_alternative<ledger::DeploymentCreated>(event);
  result.deployed += std::holds_alternative<ledger::DeploymentReady>(event);
  result.vms += std::holds_alternative<ledger::VmRequested>(event);
}

Result<ChaosResult> run_chaos(const ChaosOptions& options) {
  TH_RETURN_IF_ERROR(check(options));
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> trace(nullptr, &std::fclose);
  if (!options.trace_file.empty()) {
    trace.reset(std::fopen(options.trace_file.c_str(), "w"));
    if (!trace) return fail(errno_error(options.trace_file, errno));
  }
  std::string scratch = (std::filesystem::temp_directory_path() / "th-sim-XXXXXX").string();
  if (::mkdtemp(scratch.data()) == nullptr) return fail(errno_error(scratch, errno));
  ChaosResult result;
  result.hash = kLogHashStart;
  Prng seeds(static_cast<uint64_t>(options.seed));
  while (result.steps < options.steps &&
         static_cast<int64_t>(result.violations.size()) < options.max_violations) {
    RoundOptions round;
    round.seed = seeds.next(), round.number = result.rounds++;
    round.steps = std::min(options.steps_per_round, options.steps - result.steps);
    round.plant = options.plant, round.scratch_dir = scratch, round.trace = trace.get();
    run_round(round, result);
  }
  std::error_code ignored;
  std::filesystem::remove_all(scratch, ignored);
  return result;
}

}  // namespace th::sim
