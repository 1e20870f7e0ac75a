#pragma once
// The disk of a simulated control plane: what is on it outlives the control plane's deaths. Thread: one
// owner.

#include <memory>

#include "ledger/store.h"
#include "sim/world/torn_vfs.h"

namespace th::sim {

class Disk {
 public:
  explicit Disk(uint64_t seed) : torn_(seed) {}

  /// The ledger, in SQLite.
  Result<std::unique_ptr<ledger::Store>> open() {
    return ledger::open_sqlite_store("ledger.db", torn_.name());
  }
  /// `power`: the machine lost its power, else only the process is gone.
  void crash(bool power) {
    if (power) return torn_.cut_power();
    if (!torn_.process_is_gone()) torn_.end_process();
  }
  /// The process ends inside the n-th write from now on.
  void die_at_write(int64_t n) { torn_.end_process_at_write(n); }
  bool process_is_gone() const { return torn_.process_is_gone(); }
  /// A planted fault: it says that writes are safe which are not.
  void lie() { torn_.ignores_sync = true; }

 private:
  TornDisk torn_;
};

}  // namespace th::sim
