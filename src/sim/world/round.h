#pragma once
// One round of chaos: a fleet, a cloud, nodes, a control plane on a disk, buyers, faults, and the checkers.

#include <cstdio>
#include <filesystem>
#include <string>

#include "ledger/event.h"
#include "sim/world/chaos.h"

namespace th::sim {

struct RoundOptions {
  uint64_t seed = 1;
  int64_t number = 0;
  int64_t steps = 0;  // with faults; then as many more as settling takes
  std::string plant;  // see ChaosOptions
  std::filesystem::path scratch_dir;
  std::FILE* trace = nullptr;
};

/// Adds one event to the numbers of its kind.
void count(const ledger::Event& event, ChaosResult& result);

/// Adds what happened to `result`. A round ends at its first violation.
void run_round(const RoundOptions& options, ChaosResult& result);

}  // namespace th::sim
