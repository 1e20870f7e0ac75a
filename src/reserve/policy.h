#pragma once
// What an operator sets: who may have how much, what goes first, and what may push what aside. Read from
// policy.yaml (docs/queue.md has every key); without one, one account and one QOS: first come, first served.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace th::reserve {

inline constexpr const char* kRootAccount = "root";        // everybody's ancestor
inline constexpr const char* kDefaultAccount = "default";  // of whoever names none
inline constexpr const char* kDefaultQos = "normal";
inline constexpr const char* kSpotQos = "spot";  // of slices that were bought as preemptible

/// A tenant. Limits hold for it and all below it.
struct AccountSpec {
  std::string name;
  std::string parent = kRootAccount;
  int64_t shares = 1;               // of its parent's usage, beside its siblings
  std::optional<int64_t> max_gpus;  // its quota: GPUs at once
  bool borrow = false;              // may use what siblings leave idle of theirs; they may take it back
  std::optional<int64_t> budget_microusd;
  int64_t budget_period_ns = 0;  // the budget starts anew so often (counted from 1970); 0: never
};

/// A quality of service: what a job or slice is, beside whose it is.
struct Qos {
  std::string name;
  int64_t priority = 0;                // 0 to 1000
  std::vector<std::string> preempts;   // names of QOS
  int64_t min_run_ns = 0;              // nothing of it is preempted earlier
  int64_t grace_ns = 5 * kSecond;      // between the notice to save a checkpoint and the end
  std::optional<int64_t> max_gpus;     // at once, of one account
  std::optional<int64_t> max_time_ns;  // of one request
};

struct Partition {
  std::string name;
  int64_t priority = 0;  // 0 to 1000
  std::string series;    // "": any
  std::optional<int64_t> default_time_ns, max_time_ns;
};

/// What one point of each factor is worth. All >= 0; age > 0, which is what keeps anything from starving.
struct Weights {
  int64_t age = 1000, fair_share = 1000, qos = 10'000, partition = 1000, size = 0;
  int64_t age_unit_ns = kDay;  // waiting so long is one point of age; waiting longer is more
};

enum class Backfill { kConservative, kEasy };

struct QueuePolicy {
  std::vector<AccountSpec> accounts;  // parents before children; without root
  std::vector<Qos> qos;               // by name, ascending
  std::vector<Partition> partitions;  // by name, ascending
  Weights weights;
  int64_t half_life_ns = 7 * kDay;  // of usage in the fair share
  Backfill backfill = Backfill::kConservative;
  int64_t depth = 100;                  // requests that are planned in one look at the queue, highest first
  int64_t hold_ns = 60 * kSecond;       // a slice that is not committed in this time expires
  int64_t spot_discount_ppm = 600'000;  // off the list price for a slice that may be preempted
  int64_t lemon_losses = 3, lemon_within_ns = 7 * kDay;  // a host that lost so many nodes in that time
  int64_t max_group_hosts = 0;          // VMs that one placement group of the cloud holds; 0: no limit
  bool split_groups = true;             // a larger gang is split over several of them; false: it is refused
  int64_t max_moves = 8;                // jobs that are moved at once to make a place for one; 0: none
  int64_t move_cost_ns = 60 * kSecond;  // what a move loses beside the work since the last checkpoint
  // A slice whose nodes all-reduce more slowly, in bytes a second of one rank's wire, is not handed over; 0:
  // not measured.
  int64_t min_all_reduce = 1'000'000;
  int64_t warm_vms = 0,
          warm_keep_ns = 10 * kMinute;  // VMs of ended jobs that stay for the next, and how long

  const AccountSpec* find_account(std::string_view name) const;
  /// Into `accounts`; an account that the policy does not have counts as "default".
  size_t account_index(std::string_view name) const;
  const Qos* find_qos(std::string_view name) const;
  const Partition* find_partition(std::string_view name) const;
};

/// One account "default", the QOS "normal" and "spot" (which normal may preempt).
QueuePolicy default_policy();

/// Names that exist, parents without a cycle, numbers in range; children of a quota that add up to more are
/// allowed, since the parent's quota holds anyway. "default", "normal" and "spot" are added where missing.
/// Errors: kInvalidArgument, "policy.yaml:7: accounts[2].parent: ...".
Result<QueuePolicy> parse_policy(std::string_view yaml, std::string_view file);

}  // namespace th::reserve
