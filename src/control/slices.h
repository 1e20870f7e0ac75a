#pragma once
// Slices: offered, held, committed, made real all or none, handed over, repaired, released. Thread: the loop
// only.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/result.h"
#include "control/core.h"
#include "control/live_vms.h"
#include "control/node_checks.h"
#include "control/warm_pool.h"
#include "request/slice_spec.h"

namespace th::control {

/// `sooner`: the smallest change that would start it at the wanted time, when `plan` starts later; `reason`:
/// what is in the way of that. `cheaper`: how to pay less for the same.
struct Offer {
  std::string series;
  reserve::Plan plan;
  std::string sooner, cheaper = {};
  std::string reason_code = {}, reason = {};
};

class Slices {
 public:
  Slices(Core& core, NodeChecks& checks);

  /// What a slice would be, now or at its earliest; `reservations`: of those who asked earlier. Nothing is
  /// kept. Of its alternatives: the first that can start when it is wanted, else the one that can start
  /// soonest.
  Result<Offer> offer(const request::SliceSpec& spec, const reserve::Snapshot& reservations) const;
  /// Keeps the offer's hosts for a while. Returns the slice's id. Errors: kAlreadyExists, kNotFound (its
  /// stack), those of a refusal.
  Result<std::string> hold(const request::SliceSpec& spec, const reserve::Snapshot& reservations);
  /// Held and committed at once, for one job. Returns the slice's id.
  std::string lease_for_job(const std::string& job, const std::string& series, const std::string& stack,
                            const reserve::Plan& plan, const ledger::Owner& owner);
  /// From so many GPUs, in whole hosts, to so many, all or none. More: hosts are kept at once, and are the
  /// slice's when every one of them is validated; until then, and when one fails, it keeps its size. Fewer:
  /// at once, of hosts on which nothing runs; where jobs that can rescale are in the way, once they have
  /// saved their work and ended. Errors: kNotFound, kFailedPrecondition (not ready, being resized, jobs in
  /// the way), those of a refusal.
  Status resize(const std::string& name, int64_t gpus, const reserve::Snapshot& reservations);
  Status commit(const std::string& name);
  /// Its VMs are deleted once nothing runs on them any more. Releasing what is released is a success.
  Status release(const std::string& name, const std::string& reason);

  /// What Slices asks of the jobs: whether ranks of it may be left; whether it can go on with so many GPUs of
  /// its slice; to save its work and end, and go on with what is left.
  std::function<bool(const std::string& job)> has_ranks;
  std::function<bool(const std::string& job, int64_t gpus)> can_shrink_to;
  std::function<void(const std::string& job, const std::string& slice)> rescale;

  /// From now on no lost node is replaced.
  void close() { closing_ = true, warm_.close(); }
  /// Moves every slice on as far as it can. Called after each batch.
  void step();
  /// The VM is gone: its host is avoided for a while. `reason` starts with the cause: "process 4711 is gone".
  void node_down(const std::string& vm, const std::string& reason);
  /// Whether the VM is being deleted, so that its end is no news.
  bool removing(const std::string& vm) const { return removing_.count(vm) > 0 || warm_.is_ending(vm); }
  /// Why a slice that lost a node is not whole again; empty when it is, or is being repaired.
  std::string repair_note(const std::string& slice) const;

 private:
  void hold_plan(const std::string& id, const std::string& name, const std::string& series, bool implicit,
                 const reserve::Plan& plan, const ledger::Owner& owner);
  /// One of the alternatives. `refusal`: why it cannot start when it is wanted; `plan` starts later then.
  struct Choice {
    request::SliceSpec spec;  // with its series
    std::string zone;
    int64_t attempt = 0;
    reserve::Plan plan;
    std::optional<reserve::Refusal> refusal;
  };
  /// From alternative `attempt` on.
  Result<Choice> choose(const request::SliceSpec& spec, const ledger::Owner& owner, int64_t attempt,
                        const reserve::Snapshot& reservations) const;
  Result<std::string> hold_from(const request::SliceSpec& spec, ledger::Owner owner, int64_t attempt,
                                const reserve::Snapshot& reservations);
  /// The cloud does not make it: it fails, and the next alternative is tried where that may help.
  void refused(const ledger::Slice& slice, const Error& error, const std::string& reason);
  reserve::Pending pending_of(const request::SliceSpec& spec, const ledger::Owner& owner) const;
  tl::expected<reserve::Plan, reserve::Refusal> decide(const reserve::Snapshot& reservations,
                                                       const reserve::Pending& pending) const;
  Status grow(const ledger::Slice& slice, int64_t gpus, const reserve::Snapshot& reservations);
  Status shrink(const ledger::Slice& slice, int64_t gpus);
  std::map<std::string, std::set<std::string>> occupants(const ledger::Slice& slice) const;
  ledger::SliceResized give_back(const ledger::Slice& slice, int64_t gpus,
                                 const std::set<std::string>& keep) const;
  void advance_shrink(const ledger::Slice& slice);
  void advance_resize(const ledger::Slice& slice);
  void end_what_is_over();
  void end_when_idle(const ledger::Slice& slice);
  void check_fabric(const ledger::Slice& slice);
  bool is_first_gang(const ledger::Slice& slice) const;
  void step_slice(const ledger::Slice& slice);
  bool is_at_rest(const ledger::Slice& slice);
  void start(const ledger::Slice& slice);
  void repair(const ledger::Slice& slice);
  Status replace(const ledger::Slice& slice, const ledger::Share& lost);
  void replace_at_start(const ledger::Slice& slice, const ledger::Share& lost);
  void finish_release(const ledger::Slice& slice);
  void create_requested(const ledger::Slice& slice);
  void created(const std::string& slice, const std::vector<std::string>& vms,
               const Result<std::vector<cloud::VmState>>& made);
  void delete_unwanted(const ledger::Slice& slice);
  void request_vm(const ledger::Slice& slice, const ledger::Share& share);
  bool jobs_left(const std::string& slice) const;
  bool is_late(const ledger::Vm& vm) const;
  bool has_vm_on(const ledger::Slice& slice, const std::string& host) const;
  /// What the VMs that are there take of the fleet. A host without any takes nothing.
  struct Use {
    int64_t version = -1;               // of the ledger's state that it was counted at
    std::vector<bool> is_taken, is_on;  // each host: by a slice; by a slice or a VM that is kept
    std::map<fleet::RackIndex, int64_t> rack_w;
    std::map<fleet::RowIndex, int64_t> row_w;
    std::map<fleet::SiteIndex, int64_t> site_w;
    void add(const fleet::Fleet& fleet, fleet::HostIndex host, int64_t gpus);
  };
  const Use& use();
  bool hosts_are_given_back(const ledger::Slice& slice);
  bool power_is_given_back(const ledger::Slice& slice);

  Core& core_;
  NodeChecks& checks_;
  WarmPool warm_;
  int64_t since_ns_;                         // start of this controller
  std::set<std::string> creating_;           // slices with a create() under way
  std::map<std::string, int64_t> removing_;  // VM → monotonic time before which remove() is not repeated
  std::map<std::string, int64_t> next_repair_ns_;  // slice → monotonic time
  std::map<std::string, int64_t> idle_since_ns_;   // slice → monotonic time
  std::map<std::string, std::string> repair_notes_;
  std::map<std::string, int64_t> at_rest_;  // slice → Core::changed() when all its nodes were ready
  Use use_;
  bool closing_ = false;
};

/// The plan's hosts as the ledger names them.
std::vector<ledger::Share> shares_of(const reserve::Plan& plan, const fleet::Fleet& fleet);

}  // namespace th::control
