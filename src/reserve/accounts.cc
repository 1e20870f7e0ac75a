#include "reserve/accounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "reserve/explain.h"

namespace th::reserve {
namespace {

bool overlaps(const Use& use, int64_t start_ns, int64_t end_ns) {
  return use.start_ns < end_ns && start_ns < use.end_ns;
}

}  // namespace

Accounts::Accounts(const QueuePolicy& policy, Standing standing, std::vector<Use> uses)
    : policy_(&policy), standing_(std::move(standing)) {
  const size_t count = policy.accounts.size();
  standing_.usage_gpu_s.resize(count);
  standing_.committed_microusd.resize(count);
  nodes_.resize(count);
  std::vector<size_t> top;
  for (size_t i = 0; i < count; ++i) {
    const std::string& parent = policy.accounts[i].parent;
    auto above = std::ranges::find(policy.accounts, parent, &AccountSpec::name);
    if (above == policy.accounts.end()) {
      top.push_back(i);
      continue;
    }
    nodes_[i].parent = static_cast<size_t>(above - policy.accounts.begin());
    nodes_[*nodes_[i].parent].children.push_back(i);
  }
  for (const Use& use : uses) add(use, 0);
  fair_share_ppm_.assign(count, 0);
  int64_t rank = static_cast<int64_t>(count);
  rank_leaves(std::move(top), rank);
}

size_t Accounts::index_of(std::string_view name) const { return policy_->account_index(name); }

double Accounts::usage_below(size_t account) const {
  double usage = standing_.usage_gpu_s[account];
  for (size_t child : nodes_[account].children) usage += usage_below(child);
  return usage;
}

/// Gives the ranks from `next_rank` downwards to the leaves below a level, those that are owed most first.
void Accounts::rank_leaves(std::vector<size_t> level, int64_t& next_rank) {
  struct Entry {
    size_t account;
    bool itself;  // an inner account's own usage, beside its children
    double fairness;
  };
  std::vector<Entry> entries;
  auto enter = [&](std::vector<size_t> siblings, std::optional<size_t> parent) {
    double usage = 0, shares = 0;
    for (size_t s : siblings) {
      usage += usage_below(s);
      shares += static_cast<double>(policy_->accounts[s].shares);
    }
    if (parent) usage += standing_.usage_gpu_s[*parent], shares += 1;
    auto fairness = [&](double own_shares, double own_usage) {
      if (own_usage <= 0) return std::numeric_limits<double>::infinity();
      return own_shares / shares / (own_usage / usage);
    };
    for (size_t s : siblings)
      entries.push_back(
          {s, false, fairness(static_cast<double>(policy_->accounts[s].shares), usage_below(s))});
    if (parent) entries.push_back({*parent, true, fairness(1, standing_.usage_gpu_s[*parent])});
  };
  // A level of several parents comes about when those were equal: their children are ranked as one list.
  std::vector<std::optional<size_t>> parents;
  for (size_t account : level) {
    if (std::ranges::find(parents, nodes_[account].parent) == parents.end())
      parents.push_back(nodes_[account].parent);
  }
  for (const auto& parent : parents) {
    std::vector<size_t> siblings;
    for (size_t account : level) {
      if (nodes_[account].parent == parent) siblings.push_back(account);
    }
    enter(std::move(siblings), parent);
  }
  std::ranges::stable_sort(entries, std::ranges::greater{}, &Entry::fairness);
  for (size_t begin = 0, end = 0; begin < entries.size(); begin = end) {
    while (end < entries.size() && entries[end].fairness == entries[begin].fairness) ++end;
    const int64_t rank = next_rank;
    std::vector<size_t> below;
    for (size_t i = begin; i < end; ++i) {
      const auto& [account, itself, fairness] = entries[i];
      const auto& children = nodes_[account].children;
      if (!itself && !children.empty()) {
        below.insert(below.end(), children.begin(), children.end());
        continue;
      }
      fair_share_ppm_[account] = detail::part_ppm(rank, static_cast<int64_t>(nodes_.size()));
      --next_rank;
    }
    if (!below.empty()) rank_leaves(std::move(below), next_rank);
  }
}

int64_t Accounts::fair_share_ppm(std::string_view account) const {
  return fair_share_ppm_[index_of(account)];
}

bool Accounts::is_within(size_t account, size_t above) const {
  for (std::optional<size_t> at = account; at; at = nodes_[*at].parent) {
    if (*at == above) return true;
  }
  return false;
}

/// Most GPUs at any time of the window, of the uses that count.
int64_t Accounts::peak(int64_t start_ns, int64_t end_ns, auto counts) const {
  std::vector<std::pair<int64_t, int64_t>> steps;
  for (size_t i = 0; i < uses_.size(); ++i) {
    if (!overlaps(uses_[i], start_ns, end_ns) || !counts(i)) continue;
    steps.emplace_back(std::max(start_ns, uses_[i].start_ns), uses_[i].gpus);
    steps.emplace_back(uses_[i].end_ns, -uses_[i].gpus);
  }
  std::ranges::sort(steps);
  int64_t gpus = 0, most = 0;
  for (const auto& step : steps) {
    gpus += step.second;
    most = std::max(most, gpus);
  }
  return most;
}

int64_t Accounts::gpus_at(size_t account, int64_t time_ns) const {
  return peak(time_ns, time_ns + 1, [&](size_t i) { return is_within(use_account_[i], account); });
}

/// The first end after a moment of a use below that account; 0: none.
int64_t Accounts::next_end(int64_t after_ns, size_t above) const {
  int64_t next = 0;
  for (size_t i = 0; i < uses_.size(); ++i) {
    if (uses_[i].end_ns <= after_ns || !is_within(use_account_[i], above)) continue;
    if (next == 0 || uses_[i].end_ns < next) next = uses_[i].end_ns;
  }
  return next;
}

void Accounts::find_quotas(const Use& want, std::vector<Limit>& found) const {
  for (std::optional<size_t> at = index_of(want.account); at; at = nodes_[*at].parent) {
    const AccountSpec& spec = policy_->accounts[*at];
    if (!spec.max_gpus) continue;
    const size_t node = *at;
    const int64_t used =
        peak(want.start_ns, want.end_ns, [&](size_t i) { return is_within(use_account_[i], node); });
    Limit limit;
    if (spec.borrow || want.gpus <= *spec.max_gpus) limit.retry_ns = next_end(want.start_ns, node);
    if (used + want.gpus > *spec.max_gpus && !spec.borrow) {
      Change change;
      change.raise_quota_gpus = used + want.gpus;
      change.size_ppm = detail::part_ppm(used + want.gpus - *spec.max_gpus, want.gpus);
      change.text =
          fmt::format("raise the quota of account {} to {}", spec.name, counted(used + want.gpus, "GPU"));
      limit.text = fmt::format("{} beside {} in use by account {}, whose quota is {} at once",
                               counted(want.gpus, "GPU"), used, spec.name, *spec.max_gpus);
      limit.changes.push_back(std::move(change));
      found.push_back(std::move(limit));
      continue;
    }
    const auto parent = nodes_[node].parent;
    if (parent && policy_->accounts[*parent].max_gpus)
      continue;  // what there is to lend is the parent's quota
    int64_t capacity = 0;
    std::vector<size_t> lenders;
    for (size_t s = 0; s < nodes_.size(); ++s) {
      if (nodes_[s].parent != parent || !policy_->accounts[s].max_gpus) continue;
      capacity += *policy_->accounts[s].max_gpus;
      lenders.push_back(s);
    }
    auto is_lender = [&](size_t i) {
      return std::ranges::any_of(lenders, [&](size_t s) { return is_within(use_account_[i], s); });
    };
    const int64_t lent = peak(want.start_ns, want.end_ns, is_lender);
    if (lent + want.gpus <= capacity) continue;
    for (size_t s : lenders) {
      const int64_t end = next_end(want.start_ns, s);
      if (end != 0 && (limit.retry_ns == 0 || end < limit.retry_ns)) limit.retry_ns = end;
    }
    limit.text = fmt::format(
        "{} beside {} in use by account {} (quota {}), and of the {} of it and its siblings {} "
        "are in use",
        counted(want.gpus, "GPU"), used, spec.name, *spec.max_gpus, capacity, lent);
    found.push_back(std::move(limit));
  }
}

void Accounts::find_budgets(const Use& want, int64_t price, int64_t now_ns, std::vector<Limit>& found) const {
  for (std::optional<size_t> at = index_of(want.account); at; at = nodes_[*at].parent) {
    const AccountSpec& spec = policy_->accounts[*at];
    const int64_t committed = standing_.committed_microusd[*at];
    if (!spec.budget_microusd || price <= *spec.budget_microusd - committed) continue;
    Limit limit;
    limit.reason = Reason::kBudget;
    limit.text = fmt::format("it would cost {} beside {} spent or promised by account {}, whose budget is {}",
                             format_money(price), format_money(committed), spec.name,
                             format_money(*spec.budget_microusd));
    if (spec.budget_period_ns > 0) {
      limit.text += " every " + format_duration(spec.budget_period_ns);
      if (price <= *spec.budget_microusd)
        limit.retry_ns = (now_ns / spec.budget_period_ns + 1) * spec.budget_period_ns;
    }
    Change change;
    change.raise_budget_microusd = committed + price;
    change.size_ppm = detail::part_ppm(committed + price - *spec.budget_microusd, price);
    change.text =
        fmt::format("raise the budget of account {} to {}", spec.name, format_money(committed + price));
    limit.changes.push_back(std::move(change));
    found.push_back(std::move(limit));
  }
}

std::optional<Limit> Accounts::qos_limit(const Use& want) const {
  const Qos* qos = policy_->find_qos(want.qos);
  if (!qos) return std::nullopt;
  Limit limit;
  limit.reason = Reason::kLimit;
  if (qos->max_time_ns && want.end_ns - want.start_ns > *qos->max_time_ns) {
    Change change;
    change.duration_ns = *qos->max_time_ns;
    change.size_ppm =
        detail::part_ppm(want.end_ns - want.start_ns - *qos->max_time_ns, want.end_ns - want.start_ns);
    change.text = "shorten to " + format_duration(*qos->max_time_ns);
    limit.text = fmt::format("QOS {} allows {} at most", qos->name, format_duration(*qos->max_time_ns));
    limit.changes.push_back(std::move(change));
    return limit;
  }
  if (!qos->max_gpus) return std::nullopt;
  const size_t account = index_of(want.account);
  auto counts = [&](size_t i) { return use_account_[i] == account && uses_[i].qos == want.qos; };
  const int64_t used = peak(want.start_ns, want.end_ns, counts);
  if (used + want.gpus <= *qos->max_gpus) return std::nullopt;
  limit.text = fmt::format("{} beside {} in use by account {} under QOS {}, which allows {} at once",
                           counted(want.gpus, "GPU"), used, want.account, qos->name, *qos->max_gpus);
  limit.retry_ns = want.gpus <= *qos->max_gpus ? next_end(want.start_ns, account) : 0;
  return limit;
}

std::optional<Limit> Accounts::limit_of(const Use& want, int64_t price_microusd, int64_t now_ns) const {
  if (auto limit = qos_limit(want)) return limit;
  std::vector<Limit> found;
  find_quotas(want, found);
  if (found.empty()) find_budgets(want, price_microusd, now_ns, found);
  if (found.empty()) return std::nullopt;
  // The nearest account's words; but a change helps only when nothing else is in the way.
  if (found.size() > 1) found[0].changes.clear();
  for (const Limit& limit : found) {
    if (limit.retry_ns == 0) found[0].retry_ns = 0;
    if (found[0].retry_ns != 0) found[0].retry_ns = std::max(found[0].retry_ns, limit.retry_ns);
  }
  return std::move(found[0]);
}

bool Accounts::may_reclaim(const Use& want, const Use& lent, int64_t now_ns) const {
  const size_t owner = index_of(want.account), borrower = index_of(lent.account);
  for (std::optional<size_t> mine = owner; mine; mine = nodes_[*mine].parent) {
    if (is_within(borrower, *mine)) return false;  // a relative within one and the same account
    for (std::optional<size_t> theirs = borrower; theirs; theirs = nodes_[*theirs].parent) {
      if (nodes_[*theirs].parent != nodes_[*mine].parent) continue;
      const auto& own = policy_->accounts[*mine].max_gpus;
      const auto& other = policy_->accounts[*theirs].max_gpus;
      return own && other && gpus_at(*mine, now_ns) + want.gpus <= *own && gpus_at(*theirs, now_ns) > *other;
    }
  }
  return false;
}

bool Accounts::borrows(std::string_view account, int64_t gpus, int64_t now_ns) const {
  for (std::optional<size_t> at = index_of(account); at; at = nodes_[*at].parent) {
    const AccountSpec& spec = policy_->accounts[*at];
    if (spec.borrow && gpus_at(*at, now_ns) + gpus > *spec.max_gpus) return true;
  }
  return false;
}

void Accounts::add(const Use& use, int64_t price_microusd) {
  const size_t account = index_of(use.account);
  uses_.push_back(use);
  use_account_.push_back(account);
  for (std::optional<size_t> at = account; at; at = nodes_[*at].parent)
    standing_.committed_microusd[*at] += price_microusd;
}

void Accounts::remove(std::string_view id) {
  for (size_t i = uses_.size(); i-- > 0;) {
    if (uses_[i].id != id) continue;
    uses_.erase(uses_.begin() + static_cast<std::ptrdiff_t>(i));
    use_account_.erase(use_account_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Accounts::end_early(std::string_view id, int64_t end_ns) {
  for (Use& use : uses_) {
    if (use.id == id) use.end_ns = std::min(use.end_ns, end_ns);
  }
}

}  // namespace th::reserve
