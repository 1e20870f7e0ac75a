#pragma once
// An operator's accounts as the checkers see them, and books of who has how many GPUs and how much money: own
// arithmetic over windows, without the code that decides. Thread: one owner.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace th::sim {

struct AccountRule {
  std::string name, parent;  // "": below the root
  std::optional<int64_t> max_gpus;
  bool borrow = false;
  std::optional<int64_t> budget_microusd;
  int64_t period_min = 0;  // of the budget; 0: it never starts anew
};

struct QosRule {
  std::string name;
  int64_t priority = 0;
  std::string preempts;  // names in a YAML list
  std::optional<int64_t> max_gpus;
  int64_t min_run_s = 0, grace_s = 5;
};

struct TenantRules {
  std::vector<AccountRule> accounts;
  std::vector<QosRule> qos;
};

/// A tree with quotas, what may be borrowed and what may not, budgets of two periods, and three QOS.
TenantRules chaos_tenants();
/// The same with each quota and budget at twice what it is: a control plane that reads its policy wrongly.
TenantRules misread(TenantRules rules);
/// As policy.yaml, with so many VMs kept warm.
std::string policy_yaml(const TenantRules& rules, int64_t warm_vms);

/// What a lease counts as.
struct Share {
  std::string account, qos;
  bool firm = false;  // nobody can take it back
  int64_t gpus = 0, start_ns = 0, end_ns = 0;
  int64_t acquired_ns = 0, microusd = 0;  // its whole price, in the budget's period in which it was acquired
};

class AccountBooks {
 public:
  explicit AccountBooks(TenantRules rules) : rules_(std::move(rules)) {}

  /// A lease from now on, or with other terms. Returns: each limit that is passed at any moment up to its
  /// end, in words. Cost: O(leases² × depth).
  std::vector<std::string> put(const std::string& id, const Share& share, int64_t now_ns);
  /// It has no GPUs any more, and cost so much.
  void end(const std::string& id, int64_t microusd);

  int64_t committed(const std::string& account, int64_t time_ns) const;

 private:
  const AccountRule* find(const std::string& name) const;
  bool is_below(const std::string& account, const std::string& above) const;
  int64_t peak(const Share& window, int64_t now_ns, auto counts) const;
  void book(const Share& share, int64_t microusd);
  void check_gpus(const Share& share, int64_t now_ns, std::vector<std::string>& found) const;
  void check_lending(const AccountRule& rule, const Share& share, int64_t now_ns,
                     std::vector<std::string>& found) const;
  void check_money(const Share& share, std::vector<std::string>& found) const;

  TenantRules rules_;
  std::map<std::string, Share> shares_;                          // of those that have GPUs
  std::map<std::pair<std::string, int64_t>, int64_t> microusd_;  // (account, period) → with all below it
};

}  // namespace th::sim
