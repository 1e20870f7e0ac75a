#pragma once
// The disk of a simulated control plane: what is on it outlives the control plane's deaths. Thread: one
// owner.

#include <memory>

#include "base/env.h"
#include "ledger/store.h"

namespace th::sim {

class Disk {
 public:
  explicit Disk(uint64_t seed) : prng_(seed), log_(ledger::open_memory_store()) {}

  Result<std::unique_ptr<ledger::Store>> open();
  /// `power`: the machine lost its power, else only the process is gone.
  void crash(bool power);

  bool loses_synced_writes = false;  // a planted fault

 private:
  Prng prng_;
  std::shared_ptr<ledger::Store> log_;
  std::shared_ptr<std::vector<ledger::Batch>> unwritten_;
};

}  // namespace th::sim
