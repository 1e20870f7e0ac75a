#pragma once
// Tenants at one moment: what each has, may have, and is owed. Pure values; docs/queue.md has the rules.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reserve/policy.h"
#include "reserve/reserve.h"

namespace th::reserve {

/// What counts against quotas: a lease, a hold, a job with a place of its own, or a plan of one.
struct Use {
  std::string id, account, qos;
  int64_t gpus = 0, start_ns = 0, end_ns = 0;
};

/// By index in QueuePolicy::accounts; empty: nothing so far.
struct Standing {
  std::vector<double> usage_gpu_s;          // decayed, of the account alone
  std::vector<int64_t> committed_microusd;  // in its budget's period, with all accounts below it
};

/// A limit that is in the way.
struct Limit {
  Reason reason = Reason::kQuota;  // kQuota, kBudget, kLimit (of the QOS)
  std::string text;
  std::vector<Change> changes;
  int64_t retry_ns = 0;  // the next moment at which it may not be; 0: time alone does not help
};

/// Fair share is Slurm's Fair Tree (slurm.schedmd.com/fair_tree.html): siblings are ranked by their level
/// fair share, shares over usage, both as parts of all siblings', and a whole subtree goes before the next;
/// equal siblings are ranked as one. An account that has accounts below it takes part among them with its own
/// usage and one share. The factor is the rank over the number of leaves.
class Accounts {
 public:
  /// `policy` must outlive it.
  Accounts(const QueuePolicy& policy, Standing standing, std::vector<Use> uses);

  /// An account that the policy does not have counts as "default".
  size_t index_of(std::string_view name) const;
  /// In millionths, 1'000'000 is owed most.
  int64_t fair_share_ppm(std::string_view account) const;

  /// What keeps `want` from being had beside all uses: a quota of it or an account above, one that others
  /// have borrowed from, a budget, its QOS. nullopt: nothing. Cost: O(uses log uses × depth of the tree).
  std::optional<Limit> limit_of(const Use& want, int64_t price_microusd, int64_t now_ns) const;

  /// Whether `want` stays within what is its own, while `lent` is, at now_ns, of a relative that has more
  /// than its own: so that it has to be given back.
  bool may_reclaim(const Use& want, const Use& lent, int64_t now_ns) const;

  /// Whether it would be more than the account's own, or that of one above it.
  bool borrows(std::string_view account, int64_t gpus, int64_t now_ns) const;

  void add(const Use& use, int64_t price_microusd);
  void remove(std::string_view id);
  void end_early(std::string_view id, int64_t end_ns);

  const std::vector<Use>& uses() const { return uses_; }
  /// GPUs of the account and all below it at a moment.
  int64_t gpus_at(size_t account, int64_t time_ns) const;

 private:
  struct Node {
    std::optional<size_t> parent;
    std::vector<size_t> children;
  };
  bool is_within(size_t account, size_t above) const;
  int64_t peak(int64_t start_ns, int64_t end_ns, auto counts) const;
  int64_t next_end(int64_t after_ns, size_t above) const;
  void find_quotas(const Use& want, std::vector<Limit>& found) const;
  void find_budgets(const Use& want, int64_t price, int64_t now_ns, std::vector<Limit>& found) const;
  std::optional<Limit> qos_limit(const Use& want) const;
  double usage_below(size_t account) const;
  void rank_leaves(std::vector<size_t> level, int64_t& next_rank);

  const QueuePolicy* policy_;
  Standing standing_;
  std::vector<Use> uses_;
  std::vector<size_t> use_account_;
  std::vector<Node> nodes_;
  std::vector<int64_t> fair_share_ppm_;
};

}  // namespace th::reserve
