#pragma once
// What all parts of the controller share: the ledger, the picture of the fleet that follows from it, and what
// is to happen once the staged events are durable. Thread: the loop only.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/env.h"
#include "cloud/provider.h"
#include "control/loop.h"
#include "control/tenants.h"
#include "launch/local/launcher.h"
#include "ledger/ledger.h"
#include "registry/registry.h"
#include "reserve/reserve.h"

namespace th::control {

struct CoreParts {
  Env& env;
  ledger::Ledger& ledger;
  std::shared_ptr<const fleet::Fleet> fleet;
  cloud::Provider& provider;
  launch::LocalLauncher& launcher;
  const registry::Registry& registry;
  std::filesystem::path state_dir;
  Offload offload;
  std::string job_secret = {};  // keys of jobs come of it; empty: jobs get none
  reserve::QueuePolicy policy = reserve::default_policy();
  launch::Launcher* gangs = nullptr;  // who starts gangs in place of `launcher`: Slurm
};

/// Who a command comes from. As it is made: the loop itself, which may everything.
struct Caller {
  ledger::Owner owner = {};  // account: the tenant it acts in, "": the platform; user: its name
  ledger::Role role = ledger::Role::kAdmin;    // in that tenant and below
  std::string user = {}, key = {}, peer = {};  // ids; key: "job-12" of a batch script; peer: from where
};

class Core {
 public:
  explicit Core(CoreParts parts);

  const ledger::State& state() const { return parts_.ledger.state(); }
  ledger::Ledger& ledger() { return parts_.ledger; }
  const fleet::Fleet& fleet() const { return *parts_.fleet; }
  const std::shared_ptr<const fleet::Fleet>& fleet_ptr() const { return parts_.fleet; }
  cloud::Provider& provider() { return parts_.provider; }
  launch::Launcher& launcher() { return parts_.gangs != nullptr ? *parts_.gangs : parts_.launcher; }
  /// Whether th-node starts the ranks; else Slurm, which knows a node by the name of its host.
  bool nodes_start_ranks() const { return parts_.gangs == nullptr; }
  bool has_own_gangs() const { return parts_.gangs != nullptr; }  // Slurm starts the ranks, not th-node
  launch::LocalLauncher& node_launcher() { return parts_.launcher; }
  bool is_simulated() const { return parts_.provider.kind() == "simulated"; }
  const registry::Registry& registry() const { return parts_.registry; }
  const std::filesystem::path& state_dir() const { return parts_.state_dir; }
  void offload(Work work) { parts_.offload(std::move(work)); }

  int64_t now_ns() const;  // never before the last event
  int64_t monotonic_ns() const { return parts_.env.monotonic_ns(); }
  std::string token() { return parts_.env.token(); }
  /// What a batch job says who it is with: "job-12.HEX", good while it runs. Empty without a secret.
  std::string job_key(const std::string& job) const;
  /// The job that the key is of, while it runs; else empty.
  std::string job_of_key(std::string_view key) const;

  /// What the operator set (docs/queue.md).
  const reserve::QueuePolicy& policy() const { return parts_.policy; }
  /// Whether policy.yaml says its limits, and not what was made by API.
  bool is_of_policy(std::string_view account) const;
  const Tenants& tenants() const { return tenants_; }
  /// Who the command under way comes from.
  void set_caller(Caller caller) { caller_ = std::move(caller); }
  const Caller& who() const { return caller_; }
  const ledger::Owner& caller() const { return caller_.owner; }
  /// The caller, under the account, QOS and partition that were asked for; "": its own. Errors: kNotFound
  /// (there is none such that the caller sees), kFailedPrecondition (the account was removed).
  Result<ledger::Owner> owner_for(const std::string& account, const std::string& qos,
                                  const std::string& partition) const;
  /// Of a live slice ("slice-1") or a reservation ("reservation NAME"); null if there is none.
  const reserve::Claim* find_claim(const std::string& id) const;
  /// In ascending order of their names.
  std::vector<reserve::Reservation> reservations() const;

  /// Stages an event and brings the picture of the fleet up to date.
  void stage(ledger::Event event);
  /// Keeps hosts that should have been given back, and are not yet, from being given to others. Call on each
  /// step.
  void extend_overdue_claims();
  /// Runs `action` once everything staged up to now is durable: answers, and all that acts on the world.
  void after_commit(std::function<void()> action) { actions_.push_back(std::move(action)); }
  /// Commits what is staged, then runs the actions. On an error both wait for the next call.
  Status commit();

  /// Looks anew at which hosts fail too often (QueuePolicy::lemon_losses). Call on each step.
  void refresh_lemons();
  const std::set<reserve::HostIndex>& lemons() const { return lemons_; }

  /// Who has which host when, drains, lemons and power caps included.
  const reserve::Snapshot& snapshot() const { return capped_; }
  /// snapshot() without hosts that lost a node within the last 30 s: for new placements while there are
  /// others.
  reserve::Snapshot snapshot_without_suspects() const;
  /// The same, with the host itself back in the pool as far as this slice holds it: for a slice that lost it.
  reserve::Snapshot snapshot_without_share(const std::string& slice, const std::string& host) const;
  void suspect_host(const std::string& host);
  /// VMs that the cloud is about to take away: nothing new is placed there.
  void set_leaving(std::set<std::string> vms) { leaving_ = std::move(vms); }
  bool is_leaving(const std::string& vm) const { return leaving_.count(vm) > 0; }

  // What is worth looking at on each step: not ended, or with something left to clean up.
  const std::set<std::string, ledger::IdLess>& active_slices() const { return active_slices_; }
  const ledger::ById<const ledger::Job*>& active_jobs() const { return active_jobs_; }
  /// Of the jobs that have not ended, those that wait for a slice of their own: none of active_jobs().
  const ledger::ById<const ledger::Job*>& queued_jobs() const { return queued_jobs_; }
  /// Changes whenever something about the slice was staged; 0: nothing was since the start.
  int64_t changed(const std::string& slice) const;
  /// Changes whenever something was staged.
  int64_t version() const { return state().seq; }

 private:
  bool is_claimed(const std::string& slice, const std::string& vm) const;
  void refresh_slice(const std::string& id);
  bool claim(const reserve::Claim& claim);
  void refresh_job(const std::string& id);
  void refresh_drain(const std::string& host);
  void refresh_reservation(const std::string& name);
  void claim_for(const ledger::Slice& slice, const reserve::Claim& own);
  void claim_rest(const std::string& reservation);
  reserve::Reservation reservation(const ledger::ReservationCreated& created) const;
  void set(reserve::Snapshot next);
  void set_lemon(reserve::HostIndex host, bool is_lemon);
  void set_account(const ledger::TenantCreated& tenant);

  CoreParts parts_;
  const size_t policy_accounts_ = parts_.policy.accounts.size();  // before those that were made by API
  Tenants tenants_{parts_.policy};
  Caller caller_;
  reserve::Snapshot snapshot_, capped_;  // without and with the power caps
  std::set<reserve::HostIndex> lemons_;
  std::map<std::string, reserve::Claim> claims_;  // by slice id, and by "reservation NAME"
  std::set<std::string, ledger::IdLess> active_slices_;
  ledger::ById<const ledger::Job*> active_jobs_, queued_jobs_;
  std::map<std::string, int64_t, ledger::IdLess> changed_;  // slice → seq of its last event
  std::set<std::string> leaving_;
  std::map<std::string, int64_t> suspects_;  // host → monotonic time until which
  std::vector<std::function<void()>> actions_;
};

}  // namespace th::control
