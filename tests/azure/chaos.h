#pragma once
// One rehearsal of a caller of the azure provider among faults, crashes and restarts, and what it came to.

#include <cstdint>

#include "desk.h"

namespace th::azure_emulator {

struct Outcome {
  int64_t leaked = 0;                // VMs, scale sets and reservations that nobody's lease is, at the end
  int64_t double_created = 0;        // VMs running beside those that a token had asked for
  int64_t leases_without_vm = 0;     // VMs that a lease calls ready and that do not run
  int64_t billed_difference_ns = 0;  // between what the emulator billed and what the caller accounts
  int64_t refused_by_schema = 0;     // requests that do not have the published shape
  // What happened meanwhile.
  int64_t requests = 0, faults = 0, crashes = 0, leases = 0, vm_ns = 0, unfinished = 0;

  void add(const Outcome& other);
  bool clean() const;
};

/// Thread: pure. Cost: some milliseconds.
Outcome rehearse(uint64_t seed, const Plants& plants);

}  // namespace th::azure_emulator
