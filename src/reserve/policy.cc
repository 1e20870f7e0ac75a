#include "reserve/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/config.h"
#include "base/text.h"
#include "fleet/series.h"

namespace th::reserve {
namespace {

constexpr int64_t kMaxWeight = 1'000'000, kMaxPriority = 1000, kMaxGpus = 100'000'000,
                  kMaxGroupHosts = 1'000'000;

template <class T>
const T* find_named(const std::vector<T>& items, std::string_view name) {
  auto found = std::ranges::find(items, name, &T::name);
  return found == items.end() ? nullptr : &*found;
}

template <class T>
std::vector<std::string> names_of(const std::vector<T>& items) {
  std::vector<std::string> names;
  for (const T& item : items) names.push_back(item.name);
  return names;
}

/// The name of an entry of a list, which none before it has.
template <class T>
Result<std::string> read_name(const Config& config, const std::vector<T>& before, const char* what) {
  TH_TRY(std::string name, config.string("name"));
  if (auto ok = check_name(name, what); !ok) return config.bad("name", ok.error().message);
  if (find_named(before, name)) return config.bad("name", "'" + name + "' stands here twice");
  return name;
}

Result<std::optional<int64_t>> optional_integer(const Config& config, const char* key, IntRange range) {
  if (!config.has(key)) return std::optional<int64_t>{};
  TH_TRY(int64_t value, config.integer(key, range));
  return std::optional<int64_t>(value);
}

Result<std::optional<int64_t>> optional_duration(const Config& config, const char* key) {
  if (!config.has(key)) return std::optional<int64_t>{};
  TH_TRY(int64_t value, config.duration_ns_or(key, 0));
  if (value <= 0) return config.bad(key, "want more than none");
  return std::optional<int64_t>(value);
}

Result<AccountSpec> read_account(const Config& config, const std::vector<AccountSpec>& before) {
  AccountSpec account;
  TH_TRY(account.name, read_name(config, before, "account"));
  if (account.name == kRootAccount) return config.bad("name", "'root' is everybody's ancestor already");
  TH_TRY(account.parent, config.string("parent", kRootAccount));
  TH_TRY(account.shares, config.integer_or("shares", 1, {1, kMaxWeight}));
  TH_TRY(account.max_gpus, optional_integer(config, "max_gpus", {0, kMaxGpus}));
  TH_TRY(account.borrow, config.boolean_or("borrow", false));
  if (account.borrow && !account.max_gpus) {
    return config.bad("borrow", "needs a max_gpus beside it: without a quota there is nothing to exceed");
  }
  if (config.has("budget")) {
    TH_TRY(account.budget_microusd, config.money_or("budget", 0));
  }
  TH_TRY(account.budget_period_ns, config.duration_ns_or("budget_period", 0));
  if (config.has("budget_period") && !account.budget_microusd) {
    return config.bad("budget_period", "needs a budget beside it");
  }
  if (config.has("budget_period") && account.budget_period_ns < kMinute) {
    return config.bad("budget_period", "want at least 1m");
  }
  return account;
}

/// Parents before children. Errors: a parent that does not exist, a cycle.
Status order_accounts(const std::vector<Config>& configs, std::vector<AccountSpec>& accounts) {
  std::vector<std::string> known = names_of(accounts);
  known.emplace_back(kRootAccount);
  for (size_t i = 0; i < accounts.size(); ++i) {
    const std::string& parent = accounts[i].parent;
    if (std::ranges::find(known, parent) != known.end()) continue;
    return configs[i].bad("parent", "there is no account '" + parent + "'" + did_you_mean(parent, known));
  }
  std::vector<AccountSpec> ordered;
  std::set<std::string> placed = {kRootAccount};
  while (ordered.size() < accounts.size()) {
    const size_t before = ordered.size();
    for (const AccountSpec& account : accounts) {
      if (!placed.contains(account.parent) || placed.contains(account.name)) continue;
      ordered.push_back(account);
      placed.insert(account.name);
    }
    if (ordered.size() > before) continue;
    for (size_t i = 0; i < accounts.size(); ++i) {
      if (!placed.contains(accounts[i].name)) return configs[i].bad("parent", "leads back to itself");
    }
  }
  accounts = std::move(ordered);
  return {};
}

Result<Qos> read_qos(const Config& config, const std::vector<Qos>& before) {
  Qos qos;
  TH_TRY(qos.name, read_name(config, before, "qos"));
  TH_TRY(qos.priority, config.integer_or("priority", 0, {0, kMaxPriority}));
  TH_TRY(qos.preempts, config.strings("preempts"));
  TH_TRY(qos.min_run_ns, config.duration_ns_or("min_run", 0));
  TH_TRY(qos.grace_ns, config.duration_ns_or("grace", qos.grace_ns));
  TH_TRY(qos.max_gpus, optional_integer(config, "max_gpus", {0, kMaxGpus}));
  TH_TRY(qos.max_time_ns, optional_duration(config, "max_time"));
  if (qos.grace_ns > kHour) return config.bad("grace", "want at most 1h");
  return qos;
}

Status check_preempts(const std::vector<Config>& configs, const std::vector<Qos>& all) {
  std::vector<std::string> known = names_of(all);
  for (const char* name : {kDefaultQos, kSpotQos}) {
    if (!find_named(all, name)) known.emplace_back(name);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    for (const std::string& name : all[i].preempts) {
      if (std::ranges::find(known, name) == known.end())
        return configs[i].bad("preempts", "there is no QOS '" + name + "'" + did_you_mean(name, known));
      if (name == all[i].name) return configs[i].bad("preempts", "a QOS cannot preempt itself");
    }
  }
  return {};
}

Result<Partition> read_partition(const Config& config, const std::vector<Partition>& before) {
  Partition partition;
  TH_TRY(partition.name, read_name(config, before, "partition"));
  TH_TRY(partition.priority, config.integer_or("priority", 0, {0, kMaxPriority}));
  TH_TRY(partition.series, config.string("series", ""));
  if (!partition.series.empty()) {
    if (auto series = fleet::find_series(partition.series); !series)
      return config.bad("series", series.error().message);
  }
  TH_TRY(partition.default_time_ns, optional_duration(config, "default_time"));
  TH_TRY(partition.max_time_ns, optional_duration(config, "max_time"));
  return partition;
}

Result<Weights> read_weights(const Config& root) {
  Weights weights;
  if (!root.has("weights")) return weights;
  TH_TRY(Config config, root.map("weights", {"age", "fair_share", "qos", "partition", "size", "age_unit"}));
  const IntRange range{0, kMaxWeight};
  TH_TRY(weights.age, config.integer_or("age", weights.age, {1, kMaxWeight}));
  TH_TRY(weights.fair_share, config.integer_or("fair_share", weights.fair_share, range));
  TH_TRY(weights.qos, config.integer_or("qos", weights.qos, range));
  TH_TRY(weights.partition, config.integer_or("partition", weights.partition, range));
  TH_TRY(weights.size, config.integer_or("size", weights.size, range));
  TH_TRY(weights.age_unit_ns, config.duration_ns_or("age_unit", weights.age_unit_ns));
  if (weights.age_unit_ns < kMinute) return config.bad("age_unit", "want at least 1m");
  return weights;
}

/// How hosts are chosen and jobs are moved between them.
Status read_hosts(const Config& root, QueuePolicy& policy) {
  if (root.has("lemon")) {
    TH_TRY(Config lemon, root.map("lemon", {"losses", "within"}));
    TH_TRY(policy.lemon_losses, lemon.integer_or("losses", policy.lemon_losses, {1, 100}));
    TH_TRY(policy.lemon_within_ns, lemon.duration_ns_or("within", policy.lemon_within_ns));
  }
  if (root.has("placement_group")) {
    TH_TRY(Config group, root.map("placement_group", {"max_vms", "split"}));
    TH_TRY(policy.max_group_hosts, group.integer("max_vms", {1, kMaxGroupHosts}));
    TH_TRY(policy.split_groups, group.boolean_or("split", policy.split_groups));
  }
  if (root.has("defragment")) {
    TH_TRY(Config move, root.map("defragment", {"max_moves", "move_cost"}));
    TH_TRY(policy.max_moves, move.integer_or("max_moves", policy.max_moves, {0, 1000}));
    TH_TRY(policy.move_cost_ns, move.duration_ns_or("move_cost", policy.move_cost_ns));
  }
  if (root.has("validation")) {
    TH_TRY(Config validation, root.map("validation", {"min_all_reduce"}));
    TH_TRY(policy.min_all_reduce, validation.bytes_or("min_all_reduce", policy.min_all_reduce));
    if (policy.min_all_reduce < 0) return validation.bad("min_all_reduce", "want 0 or more bytes a second");
  }
  if (root.has("warm_pool")) {
    TH_TRY(Config warm, root.map("warm_pool", {"vms", "keep"}));
    TH_TRY(policy.warm_vms, warm.integer("vms", {0, 1'000'000}));
    TH_TRY(policy.warm_keep_ns, warm.duration_ns_or("keep", policy.warm_keep_ns));
    if (policy.warm_keep_ns < kSecond) return warm.bad("keep", "want at least 1s");
  }
  return {};
}

void add_missing(QueuePolicy& policy) {
  if (!policy.find_account(kDefaultAccount)) policy.accounts.emplace_back().name = kDefaultAccount;
  const bool own_normal = policy.find_qos(kDefaultQos) != nullptr;
  if (!policy.find_qos(kSpotQos)) policy.qos.emplace_back().name = kSpotQos;
  if (!own_normal) {
    Qos& normal = policy.qos.emplace_back();
    normal.name = kDefaultQos, normal.priority = 500, normal.preempts = {kSpotQos};
  }
  std::ranges::sort(policy.qos, {}, &Qos::name);
  std::ranges::sort(policy.partitions, {}, &Partition::name);
}

}  // namespace

const AccountSpec* QueuePolicy::find_account(std::string_view name) const {
  return find_named(accounts, name);
}
size_t QueuePolicy::account_index(std::string_view name) const {
  const AccountSpec* found = find_account(name);
  if (!found) found = find_account(kDefaultAccount);
  TH_CHECK(found != nullptr);
  return static_cast<size_t>(found - accounts.data());
}
const Qos* QueuePolicy::find_qos(std::string_view name) const { return find_named(qos, name); }
const Partition* QueuePolicy::find_partition(std::string_view name) const {
  return find_named(partitions, name);
}

QueuePolicy default_policy() {
  QueuePolicy policy;
  add_missing(policy);
  return policy;
}

Result<QueuePolicy> parse_policy(std::string_view yaml, std::string_view file) {
  TH_TRY(Config root, Config::parse(yaml, file,
                                    {"accounts", "qos", "partitions", "weights", "half_life", "backfill",
                                     "depth", "hold", "spot_discount", "lemon", "placement_group",
                                     "defragment", "validation", "warm_pool"}));
  QueuePolicy policy;
  TH_TRY(auto accounts, root.maps("accounts", {"name", "parent", "shares", "max_gpus", "borrow", "budget",
                                               "budget_period"}));
  for (const Config& config : accounts) {
    TH_TRY(AccountSpec account, read_account(config, policy.accounts));
    policy.accounts.push_back(std::move(account));
  }
  TH_RETURN_IF_ERROR(order_accounts(accounts, policy.accounts));
  TH_TRY(auto qos,
         root.maps("qos", {"name", "priority", "preempts", "min_run", "grace", "max_gpus", "max_time"}));
  for (const Config& config : qos) {
    TH_TRY(Qos entry, read_qos(config, policy.qos));
    policy.qos.push_back(std::move(entry));
  }
  TH_RETURN_IF_ERROR(check_preempts(qos, policy.qos));
  TH_TRY(auto partitions,
         root.maps("partitions", {"name", "priority", "series", "default_time", "max_time"}));
  for (const Config& config : partitions) {
    TH_TRY(Partition entry, read_partition(config, policy.partitions));
    policy.partitions.push_back(std::move(entry));
  }
  TH_TRY(policy.weights, read_weights(root));
  TH_TRY(policy.half_life_ns, root.duration_ns_or("half_life", policy.half_life_ns));
  if (policy.half_life_ns < kMinute) return root.bad("half_life", "want at least 1m");
  TH_TRY(const std::string backfill, root.string("backfill", "conservative"));
  if (backfill != "conservative" && backfill != "easy")
    return root.bad("backfill", "want conservative or easy, got '" + backfill + "'");
  policy.backfill = backfill == "easy" ? Backfill::kEasy : Backfill::kConservative;
  TH_TRY(policy.depth, root.integer_or("depth", policy.depth, {1, 100'000}));
  TH_TRY(policy.hold_ns, root.duration_ns_or("hold", policy.hold_ns));
  if (policy.hold_ns < kSecond || policy.hold_ns > kDay) return root.bad("hold", "want 1s to 1d");
  TH_TRY(const double discount, root.number_or("spot_discount", 0.6));
  if (!(discount >= 0 && discount < 1)) return root.bad("spot_discount", "want 0 to less than 1");
  policy.spot_discount_ppm = static_cast<int64_t>(discount * 1e6 + 0.5);
  TH_RETURN_IF_ERROR(read_hosts(root, policy));
  add_missing(policy);
  return policy;
}

}  // namespace th::reserve
