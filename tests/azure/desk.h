#pragma once
// A caller of the azure provider that may die at any of the provider's calls: it keeps leases and accounts,
// as a controller keeps them in its ledger, and after a restart compares them with what the cloud lists.

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "cloud/azure/provider.h"
#include "emulator.h"

namespace th::azure_emulator {

/// Faults planted in the caller, to see the counters move.
struct Plants {
  bool token = false;      // forgets its client token when it tries again
  bool reconcile = false;  // does not compare after a restart
  bool account = false;    // removes VMs without the record that stop() keeps
  bool evictions = false;  // takes VMs that are gone for there
};

enum class LeaseState { kWanted, kReady, kEnding, kDone };
struct Lease {
  std::vector<std::string> vms;
  bool spot = false;
  LeaseState state = LeaseState::kWanted;
  bool forgotten = false;  // by Plants::token: other VMs were asked for in their place
};

/// Thrown out of the provider by its own call.
struct Crash {};

cloud::AzureProviderOptions options_for(const Emulator& emulator);

class Desk {
 public:
  using Account = std::tuple<std::string, std::string, int64_t>;  // token, VM, created_ns

  Desk(Emulator& cloud, Prng& prng, Plants plants);

  // Each may throw Crash.
  void acquire(size_t num_vms, bool spot);
  void release();
  void look_at_events();
  void reserve();
  /// Returns: nothing was left to do.
  bool reconcile();
  void end_all();

  /// From now on the process dies in the `calls`-th call; 0: it lives.
  void crash_in(int64_t calls) { crash_in_ = calls; }
  /// A new process on the same books.
  void restart();

  const std::map<std::string, Lease>& leases() const { return leases_; }
  /// Account → ended_ns.
  const std::map<Account, int64_t>& accounts() const { return accounts_; }
  size_t asked(const std::string& token) const;

 private:
  void create(const std::string& token);
  bool end(const std::string& token, const std::string& vm);
  bool reconcile_blocks();

  Emulator& cloud_;
  Prng& prng_;
  const Plants plants_;
  std::unique_ptr<cloud::Provider> provider_;
  int64_t crash_in_ = 0, next_ = 1;
  // What survives the process.
  std::map<std::string, Lease> leases_;  // by client token
  std::map<Account, int64_t> accounts_;
  std::map<std::string, std::string> blocks_;  // reservations by token: their names, "" while not known
};

}  // namespace th::azure_emulator
