#pragma once
// Whose things are what, in the terms of the queue: kept up to date slice by slice, and made again from the
// ledger after a start. Thread: the loop only.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ledger/state.h"
#include "reserve/queue.h"

namespace th::control {

class Tenants {
 public:
  /// `policy` must outlive it.
  explicit Tenants(const reserve::QueuePolicy& policy) : policy_(policy) {}

  /// After each event about the slice. Cost: O(depth of the tree).
  void refresh(const ledger::Slice& slice);

  /// A slice counts with its full price while it lives and with what it cost from then on, in the period of
  /// the budget in which it was acquired.
  reserve::Standing standing(const ledger::State& state, int64_t now_ns) const;
  /// Of live slices; one that is overdue is taken to be gone in a minute.
  std::vector<reserve::Use> uses(int64_t now_ns) const;
  reserve::Accounts accounts(const ledger::State& state, int64_t now_ns) const;

 private:
  struct Live {
    reserve::Use use;
    int64_t held_ns = 0, microusd = 0;
  };
  void add(std::vector<int64_t>& committed, const std::string& account, int64_t held_ns, int64_t microusd,
           int64_t now_ns) const;

  const reserve::QueuePolicy& policy_;
  std::map<std::string, Live, ledger::IdLess> live_;
  std::set<std::string> ended_;
  std::map<std::pair<size_t, int64_t>, int64_t> closed_;  // (account, period) → what its ended slices cost
};

/// Whether it is `above` or below that; "" above is the platform, which all are below of.
bool is_within(const reserve::QueuePolicy& policy, std::string_view tenant, std::string_view above);
/// The names under which the policy knows the owner's account and QOS.
std::string account_of(const ledger::Owner& owner);
std::string qos_of(const ledger::Owner& owner);

}  // namespace th::control
