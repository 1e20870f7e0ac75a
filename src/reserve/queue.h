#pragma once
// Who starts now, who waits for what, and who makes room: one look at a queue. docs/queue.md has the rules,
// docs/design/0006-queue.md why they are these. Pure, as reserve.h.
//
// Priority, in millionths of a point (w: Weights, factors 0 to 1 but for age):
//   w.age · waited / age_unit + w.fair_share · F(account) + w.qos · Q + w.partition · P + w.size · gpus / all
//   − nice
// Age alone grows without end, so of two requests the one that waited Δ longer goes first whatever else they
// are,
//   Δ = age_unit · (w.fair_share + w.qos + w.partition + w.size + difference in nice) / w.age.
// What would use borrowed quota goes after all that would not. Of what does not,
// nothing starves: only what was submitted before s + Δ can ever go before a request submitted at s,
// which is finitely much; once it is the first it has the earliest start that there is, which nothing behind
// it delays (kConservative: it had one before). Preemption by QOS keeps that: it takes a higher priority than
// the victim's, who keeps its place in the order.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reserve/accounts.h"
#include "reserve/policy.h"
#include "reserve/reserve.h"

namespace th::reserve {

/// Whose a request or a running thing is, and how it stands in the order.
struct Standpoint {
  std::string account = kDefaultAccount, user, qos = kDefaultQos, partition;
  int64_t submitted_ns = 0;
  int64_t nice = 0;  // points off
};

struct Pending {
  Request request;  // name: its id
  Standpoint who;
  int64_t min_gpus = 0;                    // takes as few, when that starts it now; 0: all or nothing
  std::optional<int64_t> deadline_ns;      // has to end by then
  std::string reservation;                 // runs on its hosts only; "": on none that are reserved
  std::optional<int64_t> budget_microusd;  // what all of it may cost
  bool spot = false;                       // at the discount, and may be preempted
  std::string after;                       // made room for this request: goes behind it while that waits
};

struct Running {
  Claim claim;  // as it is in the snapshot
  Standpoint who;
  int64_t started_ns = 0, saved_ns = 0;  // of this run; last checkpoint, 0: none
  bool preemptible = false;              // can be stopped
  bool comes_back = true;                // and is then put back into the queue
  std::optional<int64_t> ends_ns;        // it was given notice: gone by then
  std::string makes_room_for;            // whose room that is
  std::string reservation;               // whose hosts these are again when it ends
};

/// Hosts kept for some. In the snapshot is what rest() says.
struct Reservation {
  std::string name;
  Claim claim;                               // all of it
  std::vector<std::string> accounts, users;  // either suffices; both empty: for nobody (maintenance)
  std::vector<Claim> inside = {};            // what runs in it, and what is still there from before

  /// The hosts and times that nothing inside of it has, each under the claim's id.
  std::vector<Claim> rest() const;
  bool admits(const Standpoint& who) const;
};

struct QueueInput {
  const Snapshot& snapshot;  // with every claim: running, held, reserved
  const QueuePolicy& policy;
  Standing standing;      // on a slice's snapshot: for the order only, its quotas were asked with the slice
  std::vector<Use> uses;  // all that counts against quotas, by claim id
  std::span<const Pending> pending;
  std::span<const Running> running;
  std::span<const Reservation> reservations = {};
  int64_t now_ns = 0;
  std::optional<int64_t> end_by_ns;     // the slice's end
  std::string_view find_changes = "*";  // for whom: "*" all, an id, "" nobody; they cost most of the time
};

struct Decision {
  size_t index = 0;      // in pending
  int64_t priority = 0;  // millionths of a point
  int64_t gpus = 0;      // asked for, or fewer
  std::optional<Plan> start;
  Refusal refusal;                    // when it does not start: `later` is the estimate
  std::vector<std::string> preempts;  // ids of running things that get notice for it now
};

struct Preemption {
  std::string id, makes_room_for;
  int64_t ends_ns = 0;
};

struct QueuePlan {
  std::vector<Decision> decisions;      // in order: by falling priority, borrowers last
  std::vector<Preemption> preemptions;  // each once
};

/// The terms of a place in the snapshot: on a fleet the cloud's placement groups, inside of a slice none.
Policy terms_in(const Snapshot& snapshot, const QueuePolicy& policy);

/// What the plan of a request counts as.
Use use_of(const Pending& pending, const Plan& plan);

int64_t priority_of(const Standpoint& who, int64_t gpus, const QueuePolicy& policy, const Accounts& accounts,
                    int64_t fleet_gpus, int64_t now_ns);

/// One look. All that starts, starts at now_ns beside what is there and beside each other; quotas and budgets
/// hold at every moment of every plan. Cost: a few decides for each of the first policy.depth requests.
QueuePlan plan_queue(const QueueInput& input);

/// The same rules for one request of somebody who wants an answer now: beside `planned` (plans that go
/// before). Errors: a refusal; its `later` keeps to quotas as well.
tl::expected<Plan, Refusal> decide_for(const Snapshot& snapshot, const Pending& pending,
                                       const Accounts& accounts, const QueuePolicy& policy,
                                       std::optional<int64_t> end_by_ns, bool find_changes, int64_t now_ns);

}  // namespace th::reserve
