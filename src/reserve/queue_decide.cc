// Where one request stands in the order, and what its account, QOS and partition let it have.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "fleet/series.h"
#include "request/slice_spec.h"
#include "reserve/explain.h"
#include "reserve/queue.h"

namespace th::reserve {
namespace {

constexpr int64_t kPpm = 1'000'000;
constexpr int64_t kMaxAgePpm = kPpm * kPpm;  // a million units: no overflow, and no wait is that long
constexpr int kMaxTries = 64;                // moments at which a quota may have room that are looked at

Refusal refusal_of(const Pending& pending, Limit limit) {
  Refusal refusal;
  refusal.reason = limit.reason;
  refusal.text = fmt::format("'{}' wants {}", pending.request.name, limit.text);
  if (limit.reason != Reason::kQuota)
    refusal.text = fmt::format("'{}': {}", pending.request.name, limit.text);
  refusal.changes = std::move(limit.changes);
  return refusal;
}

std::optional<Refusal> check_partition(const Pending& pending, const QueuePolicy& policy) {
  const Partition* partition = policy.find_partition(pending.who.partition);
  if (!partition || !partition->max_time_ns || pending.request.duration_ns <= *partition->max_time_ns)
    return std::nullopt;
  Limit limit;
  limit.reason = Reason::kLimit;
  limit.text = fmt::format("partition {} allows {} at most", partition->name,
                           format_duration(*partition->max_time_ns));
  Change change;
  change.duration_ns = *partition->max_time_ns;
  change.size_ppm =
      detail::part_ppm(pending.request.duration_ns - *partition->max_time_ns, pending.request.duration_ns);
  change.text = "shorten to " + format_duration(*partition->max_time_ns);
  limit.changes.push_back(std::move(change));
  return refusal_of(pending, std::move(limit));
}

/// What it comes to, in whole hosts.
struct Terms {
  int64_t gpus = 0, microusd_per_gpu_hour = 0, price_microusd = 0;
};

/// gpus == 0: of a series that there is not, which decide() refuses.
Terms terms_of(const Pending& pending, const QueuePolicy& policy) {
  const auto series = fleet::find_series(pending.request.series);
  const Request& request = pending.request;
  const bool sane = request.gpus > 0 && request.gpus <= request::kMaxRequestGpus && request.duration_ns > 0 &&
                    request.duration_ns <= request::kMaxRequestDurationNs;
  if (!series || !sane) return {};
  Terms terms;
  const fleet::Series& of = fleet::series_catalogue()[static_cast<size_t>(*series)];
  const int64_t hosts = (request.gpus + of.gpus_per_host - 1) / of.gpus_per_host;
  const int64_t blocks = request.segment > 0 ? (hosts + request.segment - 1) / request.segment : 1;
  terms.gpus = (hosts + blocks * request.spares) * of.gpus_per_host;
  terms.microusd_per_gpu_hour = of.microusd_per_gpu_hour;
  if (pending.spot)
    terms.microusd_per_gpu_hour =
        detail::mul_div(terms.microusd_per_gpu_hour, kPpm - policy.spot_discount_ppm, kPpm);
  terms.price_microusd = cost_microusd(terms.gpus, pending.request.duration_ns, terms.microusd_per_gpu_hour);
  return terms;
}

void set_price(Plan& plan, const Terms& terms) {
  if (terms.gpus == 0) return;
  plan.microusd_per_gpu_hour = terms.microusd_per_gpu_hour;
  plan.price_microusd = cost_microusd(plan.gpus, plan.end_ns - plan.start_ns, terms.microusd_per_gpu_hour);
}

Limit over_own_budget(int64_t price, int64_t budget) {
  Limit limit;
  limit.reason = Reason::kBudget;
  limit.text =
      fmt::format("it would cost {}, and the request allows {}", format_money(price), format_money(budget));
  return limit;
}

/// The most that quotas leave it, when that is something: a change that starts it.
void offer_fewer(const Snapshot& snapshot, const Pending& pending, const Accounts& accounts,
                 const Policy& policy, int64_t now_ns, Refusal& refusal) {
  Pending fewer = pending;
  auto works = [&](int64_t gpus) {
    fewer.request.gpus = gpus;
    auto plan = decide(snapshot, fewer.request, policy, now_ns);
    return plan && !accounts.limit_of(reserve::use_of(fewer, *plan), plan->price_microusd, now_ns);
  };
  int64_t good = 0, bad = pending.request.gpus;
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (works(middle) ? good : bad) = middle;
  }
  if (good == 0) return;
  Change change;
  change.gpus = good;
  change.size_ppm = detail::part_ppm(pending.request.gpus - good, pending.request.gpus);
  change.text = "ask for " + counted(good, "GPU");
  refusal.changes.insert(refusal.changes.begin(), std::move(change));
  std::ranges::stable_sort(refusal.changes, {}, &Change::size_ppm);
}

}  // namespace

Policy terms_in(const Snapshot& snapshot, const QueuePolicy& policy) {
  Policy terms;
  if (snapshot.is_slice()) return terms;
  terms.max_group_hosts = static_cast<int32_t>(policy.max_group_hosts);
  terms.split_groups = policy.split_groups;
  return terms;
}

Use use_of(const Pending& pending, const Plan& plan) {
  return {pending.request.name, pending.who.account, pending.who.qos, plan.gpus, plan.start_ns, plan.end_ns};
}

std::vector<Claim> Reservation::rest() const {
  std::map<std::pair<int64_t, int64_t>, std::vector<HostGpus>> pieces;
  for (const HostGpus& part : claim.hosts) {
    std::vector<std::pair<int64_t, int64_t>> taken = {{claim.end_ns, claim.end_ns}};
    for (const Claim& of : inside) {
      if (std::ranges::binary_search(of.hosts, part.host, {}, &HostGpus::host))
        taken.emplace_back(of.start_ns, of.end_ns);
    }
    std::ranges::sort(taken);
    int64_t from_ns = claim.start_ns;
    for (const auto& [start_ns, end_ns] : taken) {
      const int64_t until_ns = std::min(start_ns, claim.end_ns);
      if (from_ns < until_ns) pieces[{from_ns, until_ns}].push_back(part);
      from_ns = std::max(from_ns, end_ns);
    }
  }
  std::vector<Claim> out;
  for (auto& [window, hosts] : pieces)
    out.push_back({claim.id, window.first, window.second, std::move(hosts)});
  return out;
}

bool Reservation::admits(const Standpoint& who) const {
  return std::ranges::find(accounts, who.account) != accounts.end() ||
         std::ranges::find(users, who.user) != users.end();
}

int64_t priority_of(const Standpoint& who, int64_t gpus, const QueuePolicy& policy, const Accounts& accounts,
                    int64_t fleet_gpus, int64_t now_ns) {
  const Weights& w = policy.weights;
  const Qos* qos = policy.find_qos(who.qos);
  const Partition* partition = policy.find_partition(who.partition);
  const int64_t waited_ns = std::max<int64_t>(0, now_ns - who.submitted_ns);
  const int64_t age_ppm = std::min(kMaxAgePpm, detail::mul_div(waited_ns, kPpm, w.age_unit_ns));
  int64_t priority = w.age * age_ppm + w.fair_share * accounts.fair_share_ppm(who.account);
  priority += w.qos * (qos ? qos->priority : 0) * 1000;
  priority += w.partition * (partition ? partition->priority : 0) * 1000;
  priority += w.size * detail::part_ppm(std::min(gpus, fleet_gpus), fleet_gpus);
  return priority - who.nice * kPpm;
}

namespace {

/// All that is asked for, or nothing.
tl::expected<Plan, Refusal> decide_whole(const Snapshot& snapshot, const Pending& pending,
                                         const Accounts& accounts, const QueuePolicy& policy,
                                         std::optional<int64_t> end_by_ns, bool find_changes,
                                         int64_t now_ns) {
  if (auto refused = check_partition(pending, policy)) return tl::unexpected(*std::move(refused));
  Policy terms = terms_in(snapshot, policy);
  terms.end_by_ns = end_by_ns;
  if (pending.deadline_ns)
    terms.end_by_ns = std::min(*pending.deadline_ns, end_by_ns.value_or(*pending.deadline_ns));
  Request request = pending.request;
  const Terms price = terms_of(pending, policy);
  // What it may pay is compared with what it would pay.
  if (pending.spot && request.max_microusd_per_gpu_hour >= price.microusd_per_gpu_hour)
    request.max_microusd_per_gpu_hour.reset();
  auto limit_at = [&](int64_t start_ns) -> std::optional<Limit> {
    if (snapshot.is_slice() || price.gpus == 0) return std::nullopt;
    if (pending.budget_microusd && price.price_microusd > *pending.budget_microusd)
      return over_own_budget(price.price_microusd, *pending.budget_microusd);
    return accounts.limit_of({request.name, pending.who.account, pending.who.qos, price.gpus, start_ns,
                              start_ns + request.duration_ns},
                             price.price_microusd, now_ns);
  };
  std::optional<Refusal> first;
  int64_t start_ns = std::max(now_ns, request.start_ns);
  for (int tries = 0; tries < kMaxTries; ++tries) {
    const auto limit = limit_at(start_ns);
    // Another period's budget is not spent yet.
    const bool next_period =
        limit && limit->reason == Reason::kBudget && first && limit->retry_ns == start_ns;
    if (limit && !next_period) {
      if (!first) {
        first = refusal_of(pending, *limit);
        if (find_changes) offer_fewer(snapshot, pending, accounts, terms, now_ns, *first);
      }
      if (limit->retry_ns <= start_ns) break;
      start_ns = limit->retry_ns;
      continue;
    }
    request.start_ns = start_ns;
    terms.find_changes = find_changes && !first;
    auto plan = decide(snapshot, request, terms, now_ns);
    if (plan) {
      set_price(*plan, price);
      if (!first) return *std::move(plan);
      first->later = *std::move(plan);
      return tl::unexpected(*std::move(first));
    }
    auto later = std::move(plan.error().later);
    if (!first) first = std::move(plan.error());
    if (!later) break;
    start_ns = later->start_ns;
  }
  first->later.reset();
  return tl::unexpected(*std::move(first));
}

}  // namespace

tl::expected<Plan, Refusal> decide_for(const Snapshot& snapshot, const Pending& pending,
                                       const Accounts& accounts, const QueuePolicy& policy,
                                       std::optional<int64_t> end_by_ns, bool find_changes, int64_t now_ns) {
  auto whole = decide_whole(snapshot, pending, accounts, policy, end_by_ns, find_changes, now_ns);
  const bool takes_fewer = pending.min_gpus > 0 && pending.min_gpus < pending.request.gpus;
  if (!takes_fewer || pending.request.start_ns > now_ns || (whole && whole->start_ns <= now_ns)) return whole;
  Pending fewer = pending;
  std::optional<Plan> best;
  int64_t good = pending.min_gpus, bad = pending.request.gpus;
  while (!best || bad - good > 1) {
    fewer.request.gpus = best ? good + (bad - good) / 2 : good;
    auto plan = decide_whole(snapshot, fewer, accounts, policy, end_by_ns, false, now_ns);
    const bool works = plan && plan->start_ns <= now_ns;
    if (!works && !best) return whole;
    (works ? good : bad) = fewer.request.gpus;
    if (works) best = *std::move(plan);
  }
  return *std::move(best);
}

}  // namespace th::reserve
