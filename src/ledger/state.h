#pragma once
// What follows from the events: plain values, changed by apply() only.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ledger/access.h"
#include "ledger/by_id.h"
#include "ledger/credentials.h"
#include "ledger/event.h"
#include "ledger/tenants.h"

namespace th::ledger {

enum class SliceState { kHeld, kStarting, kReady, kReleasing, kReleased, kFailed, kExpired };

/// Under way: hosts that are being made ready beside those of the slice.
struct Resize {
  SliceResizing asked;
  int64_t since_ns = 0;
};

struct Slice {
  SliceHeld terms;  // hosts: as they are now (replacements applied)
  SliceState state = SliceState::kHeld;
  Owner owner;
  std::optional<Resize> resize;
  SliceRequested requested;
  std::string reason, fault_code;         // fault_code: of an Error; empty unless it failed
  std::vector<std::string> vms;           // all it ever had, in order, but for those that it gave on
  std::map<std::string, int64_t> groups;  // host → placement group; those that are not here are in group 0
  int64_t held_ns = 0, ready_ns = 0, ended_ns = 0;
  GpuNs gpu_ns = 0;  // paid: of the nodes that were there, up to metered_until_ns
  int64_t metered_gpus = 0, metered_until_ns = 0;  // run since then, at most to the end of its window

  bool live() const { return state < SliceState::kReleased; }  // holds its hosts
  GpuNs gpu_ns_at(int64_t now_ns) const;
  int64_t cost_microusd_at(int64_t now_ns) const;
};

/// kKept: of no slice, ready for another one.
enum class VmState { kRequested, kUp, kReady, kDown, kDeleted, kKept };
struct Vm {
  std::string id, slice, host, token_sha256, boot_id, address, reason;
  int64_t gpus = 0, requested_ns = 0, changed_ns = 0;  // changed_ns: of its state
  std::map<int64_t, int64_t> billed_ns;                // by its cloud: from, to, since 1970
  VmState state = VmState::kRequested;
  bool was_kept = false;  // it is of an earlier slice
};

enum class JobState { kPending, kStarting, kRunning, kRestarting, kSucceeded, kFailed, kCancelled };

struct Rank {
  RankPlace place;
  bool exited = false;
  int64_t exit_code = 0, signal = 0;
  std::string reason;
};

struct Job {
  JobSubmitted submitted;
  JobState state = JobState::kPending;
  Owner owner;
  std::string slice;                     // id; empty while it waits for one of its own
  std::string end_state;                 // how it will finish; empty: nobody stopped it
  int64_t attempt = 0, master_port = 0;  // the last attempt, from 1; 0: none yet
  bool attempt_open = false;             // started and not ended
  bool attempt_succeeded = false;        // every rank of the last one exited with 0
  std::vector<Rank> ranks;               // of the last attempt
  std::vector<RankPlace> reserved;       // what it holds beside them
  int64_t checkpoint_step = 0, checkpoint_ns = 0, lost_steps = 0;
  int64_t preempted_until_ns = 0,
          preemptions = 0;  // until: saves its work for so long; 0: it is not preempted
  std::string preempted_by;
  int64_t retries_used = 0;  // serve: since it was last ready
  std::string reason, result;
  std::string cause;  // see JobCause
  int64_t submitted_ns = 0, started_ns = 0, running_ns = 0, ended_ns = 0;
  // GPU time of its attempts that ended, priced as its slice; what the last one takes.
  int64_t cost_microusd = 0, attempt_started_ns = 0, gpu_milli = 0;

  bool ended() const { return state >= JobState::kSucceeded; }
  bool cancelling() const { return !end_state.empty(); }
  bool serves() const { return submitted.kind == "serve"; }
};

struct Deployment {
  DeploymentCreated created;
  std::string state = "starting";  // starting | ready | failed | stopped
  std::string url, reason;
  int64_t created_ns = 0;
};

struct TokenUsage {
  int64_t requests = 0, prompt_tokens = 0, completion_tokens = 0;
};

struct State {
  int64_t seq = 0, time_ns = 0;
  FleetLoaded fleet;
  ById<Key> keys;
  std::map<std::string, std::string> key_of_sha256;
  std::map<std::string, Tenant> tenants;  // made by API
  std::vector<std::string> tenant_order;  // as they were made: parents first
  ById<User> users;
  ById<Invitation> invitations;
  ById<Application> applications;
  Credentials credentials;
  ById<Slice> slices;
  ById<Vm> vms;
  std::map<std::string, std::string> drained;  // host → reason
  std::set<std::string> kept_vms;              // by id: VMs in state kKept, or of them gone down
  std::map<std::string, std::string> stacks;   // "NAME@VERSION" → YAML; those that were added
  ById<Job> jobs;
  std::map<std::string, std::vector<ModelRegistered>> models;  // name → versions, oldest first
  std::map<std::string, std::vector<DataSetAdded>> data_sets;  // likewise
  std::map<std::string, Deployment> deployments;
  std::map<std::pair<std::string, std::string>, TokenUsage> tokens;  // (deployment, key id)
  std::map<std::string, int64_t> journals;                           // gateway journal → last seq taken
  std::map<std::string, AccountUsage> accounts;
  UsageHours hours;  // metered up to now, of the last kUsageHoursKeptNs; beside them what runs: add_run()
  std::map<std::string, ReservationCreated> reservations;
  std::map<std::string, PowerCapped> power_caps;
  std::map<std::string, std::vector<int64_t>> lost_nodes;  // host → when, the last few, since it was resumed
  std::string policy_sha256;
  int64_t half_life_ns = kDefaultHalfLifeNs;
  int64_t next_slice = 1, next_job = 1, next_vm = 1, next_key = 1;
  int64_t next_user = 1, next_invitation = 1, next_application = 1;

  /// The live slice of that name, else the last one that had it, else the one with that id; null if none.
  const Slice* find_slice(std::string_view name_or_id) const;
  /// What the job's attempts cost up to now.
  int64_t cost_microusd(const Job& job, int64_t now_ns) const;
  /// By id, else the last one of that name.
  const Job* find_job(std::string_view id_or_name) const;
};

std::string_view name_of(SliceState state);
std::string_view name_of(VmState state);
std::string_view name_of(JobState state);

/// The next state. Errors: kDataLoss when the event does not follow from `state` (names the event's subject
/// and what is wrong); `state` is then unchanged. Deterministic; thread: one owner. Cost: O(log n) of what it
/// names.
Status apply(State& state, const Entry& entry);

}  // namespace th::ledger
