#include "sim/world/account_books.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"

namespace th::sim {
namespace {

int64_t period_of(const AccountRule& rule, int64_t time_ns) {
  return rule.period_min == 0 ? 0 : time_ns / (rule.period_min * kMinute);
}

}  // namespace

TenantRules chaos_tenants() {
  TenantRules rules;
  rules.accounts = {{"lab", "", 20, false, 900'000, 10},    {"vision", "lab", 8, true, {}, 0},
                    {"speech", "lab", 8, true, 250'000, 5}, {"course", "", 6, false, 200'000, 5},
                    {"city", "", {}, false, 1'500'000, 30}, {"north", "city", 6, true, {}, 0},
                    {"south", "city", 6, true, {}, 0}};
  rules.qos = {{"urgent", 1000, "normal, spot", 8, 0, 10}, {"normal", 500, "spot", {}, 20, 5}};
  return rules;
}

TenantRules misread(TenantRules rules) {
  for (AccountRule& rule : rules.accounts) {
    if (rule.max_gpus) *rule.max_gpus *= 2;
    if (rule.budget_microusd) *rule.budget_microusd *= 2;
  }
  return rules;
}

std::string policy_yaml(const TenantRules& rules, int64_t warm_vms) {
  // Machines that are simulated add no numbers up.
  std::string out = "validation: {min_all_reduce: 0}\n";
  if (warm_vms > 0) out += fmt::format("warm_pool: {{vms: {}, keep: 2m}}\n", warm_vms);
  out += "accounts:\n";
  for (const AccountRule& rule : rules.accounts) {
    out += "  - {name: " + rule.name;
    if (!rule.parent.empty()) out += ", parent: " + rule.parent;
    if (rule.max_gpus) out += fmt::format(", max_gpus: {}, borrow: {}", *rule.max_gpus, rule.borrow);
    if (rule.budget_microusd)
      out += fmt::format(", budget: \"{:.6f}\"", static_cast<double>(*rule.budget_microusd) / 1e6);
    if (rule.period_min != 0) out += fmt::format(", budget_period: {}m", rule.period_min);
    out += "}\n";
  }
  out += "qos:\n";
  for (const QosRule& rule : rules.qos) {
    out += fmt::format("  - {{name: {}, priority: {}, preempts: [{}], min_run: {}s, grace: {}s", rule.name,
                       rule.priority, rule.preempts, rule.min_run_s, rule.grace_s);
    if (rule.max_gpus) out += fmt::format(", max_gpus: {}", *rule.max_gpus);
    out += "}\n";
  }
  return out;
}

const AccountRule* AccountBooks::find(const std::string& name) const {
  const auto found = std::ranges::find(rules_.accounts, name, &AccountRule::name);
  return found == rules_.accounts.end() ? nullptr : &*found;
}

bool AccountBooks::is_below(const std::string& account, const std::string& above) const {
  for (const AccountRule* at = find(account); at; at = find(at->parent)) {
    if (at->name == above) return true;
  }
  return false;
}

/// Most GPUs at once in the window of those that count. It can only rise where one of them starts.
int64_t AccountBooks::peak(const Share& window, int64_t now_ns, auto counts) const {
  // Overdue: it is still there.
  auto ends_ns = [&](const Share& share) { return std::max(share.end_ns, now_ns + 1); };
  std::vector<const Share*> there;
  for (const auto& [id, share] : shares_) {
    if (counts(share) && share.start_ns < ends_ns(window) && window.start_ns < ends_ns(share))
      there.push_back(&share);
  }
  int64_t most = 0;
  for (const Share* at : there) {
    const int64_t time_ns = std::max(at->start_ns, window.start_ns);
    int64_t gpus = 0;
    for (const Share* share : there)
      gpus += share->start_ns <= time_ns && time_ns < ends_ns(*share) ? share->gpus : 0;
    most = std::max(most, gpus);
  }
  return most;
}

void AccountBooks::book(const Share& share, int64_t microusd) {
  for (const AccountRule* at = find(share.account); at; at = find(at->parent))
    microusd_[{at->name, period_of(*at, share.acquired_ns)}] += microusd;
}

std::vector<std::string> AccountBooks::put(const std::string& id, const Share& share, int64_t now_ns) {
  if (const auto old = shares_.find(id); old != shares_.end()) book(old->second, -old->second.microusd);
  shares_[id] = share;
  book(share, share.microusd);
  std::vector<std::string> found;
  check_gpus(share, now_ns, found);
  check_money(share, found);
  return found;
}

void AccountBooks::end(const std::string& id, int64_t microusd) {
  const auto found = shares_.find(id);
  if (found == shares_.end()) return;
  book(found->second, microusd - found->second.microusd);
  shares_.erase(found);
}

int64_t AccountBooks::committed(const std::string& account, int64_t time_ns) const {
  const AccountRule* rule = find(account);
  if (!rule) return 0;
  const auto found = microusd_.find({account, period_of(*rule, time_ns)});
  return found == microusd_.end() ? 0 : found->second;
}

void AccountBooks::check_gpus(const Share& share, int64_t now_ns, std::vector<std::string>& found) const {
  for (const AccountRule* at = find(share.account); at; at = find(at->parent)) {
    if (!at->max_gpus) continue;
    // What is nobody's to take back cannot be borrowed.
    const int64_t used = peak(share, now_ns, [&](const Share& other) {
      return is_below(other.account, at->name) && (other.firm || !at->borrow);
    });
    if (used > *at->max_gpus) {
      found.push_back(fmt::format("account {} has {} GPUs{}, and its quota is {}", at->name, used,
                                  at->borrow ? " for good" : "", *at->max_gpus));
    }
    if (at->borrow) check_lending(*at, share, now_ns, found);
  }
  const auto qos = std::ranges::find(rules_.qos, share.qos, &QosRule::name);
  if (qos == rules_.qos.end() || !qos->max_gpus) return;
  const int64_t used = peak(share, now_ns, [&](const Share& other) {
    return other.account == share.account && other.qos == share.qos;
  });
  if (used > *qos->max_gpus) {
    found.push_back(fmt::format("account {} has {} GPUs under QOS {}, which allows {}", share.account, used,
                                share.qos, *qos->max_gpus));
  }
}

/// Siblings together have no more than all their quotas; where the parent has one, that is what there is.
void AccountBooks::check_lending(const AccountRule& rule, const Share& share, int64_t now_ns,
                                 std::vector<std::string>& found) const {
  if (const AccountRule* parent = find(rule.parent); parent && parent->max_gpus) return;
  int64_t quotas = 0;
  std::vector<std::string> siblings;
  for (const AccountRule& sibling : rules_.accounts) {
    if (sibling.parent != rule.parent || !sibling.max_gpus) continue;
    quotas += *sibling.max_gpus;
    siblings.push_back(sibling.name);
  }
  const int64_t used = peak(share, now_ns, [&](const Share& other) {
    return std::ranges::any_of(siblings, [&](const auto& name) { return is_below(other.account, name); });
  });
  if (used > quotas) {
    found.push_back(
        fmt::format("account {} and its siblings have {} GPUs of {} together", rule.name, used, quotas));
  }
}

void AccountBooks::check_money(const Share& share, std::vector<std::string>& found) const {
  for (const AccountRule* at = find(share.account); at; at = find(at->parent)) {
    const int64_t committed_microusd = committed(at->name, share.acquired_ns);
    if (!at->budget_microusd || committed_microusd <= *at->budget_microusd) continue;
    found.push_back(fmt::format("account {} has committed {} micro-dollars of {} in one period", at->name,
                                committed_microusd, *at->budget_microusd));
  }
}

}  // namespace th::sim
