#include "control/tenants.h"

#include <algorithm>

#include "base/units.h"

namespace th::control {
namespace {

int64_t period_of(const reserve::AccountSpec& account, int64_t time_ns) {
  return account.budget_period_ns > 0 ? time_ns / account.budget_period_ns : 0;
}

}  // namespace

std::string account_of(const ledger::Owner& owner) {
  return owner.account.empty() ? reserve::kDefaultAccount : owner.account;
}
std::string qos_of(const ledger::Owner& owner) {
  if (!owner.qos.empty()) return owner.qos;
  return owner.spot ? reserve::kSpotQos : reserve::kDefaultQos;
}

bool is_within(const reserve::QueuePolicy& policy, std::string_view tenant, std::string_view above) {
  if (above.empty() || tenant == above) return true;
  for (const reserve::AccountSpec* at = policy.find_account(tenant); at;
       at = policy.find_account(at->parent)) {
    if (at->name == above) return true;
  }
  return false;
}

void Tenants::refresh(const ledger::Slice& slice) {
  const std::string& id = slice.terms.slice;
  const std::string account = account_of(slice.owner);
  if (slice.live()) {
    int64_t gpus = slice.terms.gpus, price = slice.terms.price_microusd;
    if (slice.resize)
      gpus = std::max(gpus, slice.resize->asked.gpus),
      price = std::max(price, slice.resize->asked.price_microusd);
    live_[id] = {{id, account, qos_of(slice.owner), gpus, slice.terms.start_ns, slice.terms.end_ns},
                 slice.held_ns,
                 price};
    return;
  }
  live_.erase(id);
  if (!ended_.insert(id).second) return;
  const int64_t cost = slice.cost_microusd_at(slice.ended_ns);
  for (const reserve::AccountSpec* at = &policy_.accounts[policy_.account_index(account)]; at;
       at = policy_.find_account(at->parent)) {
    const auto node = static_cast<size_t>(at - policy_.accounts.data());
    closed_[{node, period_of(*at, slice.held_ns)}] += cost;
  }
}

reserve::Standing Tenants::standing(const ledger::State& state, int64_t now_ns) const {
  reserve::Standing out;
  const size_t count = policy_.accounts.size();
  out.usage_gpu_s.assign(count, 0), out.committed_microusd.assign(count, 0);
  for (const auto& [name, usage] : state.accounts) {
    out.usage_gpu_s[policy_.account_index(name.empty() ? reserve::kDefaultAccount : name)] +=
        usage.at(now_ns, state.half_life_ns);
  }
  for (size_t i = 0; i < count; ++i) {
    const auto closed = closed_.find({i, period_of(policy_.accounts[i], now_ns)});
    if (closed != closed_.end()) out.committed_microusd[i] = closed->second;
  }
  for (const auto& [id, live] : live_)
    add(out.committed_microusd, live.use.account, live.held_ns, live.microusd, now_ns);
  return out;
}

void Tenants::add(std::vector<int64_t>& committed, const std::string& account, int64_t held_ns,
                  int64_t microusd, int64_t now_ns) const {
  for (const reserve::AccountSpec* at = &policy_.accounts[policy_.account_index(account)]; at;
       at = policy_.find_account(at->parent)) {
    if (period_of(*at, held_ns) == period_of(*at, now_ns))
      committed[static_cast<size_t>(at - policy_.accounts.data())] += microusd;
  }
}

std::vector<reserve::Use> Tenants::uses(int64_t now_ns) const {
  std::vector<reserve::Use> out;
  for (const auto& [id, live] : live_) {
    out.push_back(live.use);
    if (out.back().end_ns <= now_ns) out.back().end_ns = now_ns + kMinute;
  }
  return out;
}

reserve::Accounts Tenants::accounts(const ledger::State& state, int64_t now_ns) const {
  return {policy_, standing(state, now_ns), uses(now_ns)};
}

}  // namespace th::control
