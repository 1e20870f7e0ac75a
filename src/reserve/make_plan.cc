#include "reserve/make_plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/units.h"

namespace th::reserve::detail {
namespace {

/// Of each segment its last hosts; without segments one at a time from the leaf with most of the gang.
std::vector<HostIndex> choose_spares(const Ask& ask, const std::vector<HostGpus>& hosts) {
  std::vector<HostIndex> spares;
  const Request& request = ask.request;
  if (request.spares == 0) return spares;
  for (size_t i = 0; request.segment > 0 && i < hosts.size(); ++i) {
    if (static_cast<int64_t>(i) % ask.block >= request.segment) spares.push_back(hosts[i].host);
  }
  if (request.segment > 0) return spares;
  std::map<fleet::LeafIndex, std::vector<HostIndex>> by_leaf;
  for (const HostGpus& part : hosts) by_leaf[ask.snapshot.fleet().host(part.host).leaf].push_back(part.host);
  while (static_cast<int64_t>(spares.size()) < request.spares) {
    auto most = std::ranges::max_element(by_leaf, {}, [](const auto& entry) { return entry.second.size(); });
    spares.push_back(most->second.back());
    most->second.pop_back();
  }
  std::ranges::sort(spares);
  return spares;
}

/// The fewest groups in rank order, cut between leaves where that takes no more of them.
std::vector<int32_t> split_into_groups(const Ask& ask, const std::vector<HostGpus>& hosts) {
  auto size = static_cast<int64_t>(hosts.size()), limit = static_cast<int64_t>(ask.policy.max_group_hosts);
  if (limit == 0) limit = size;
  auto leaf_at = [&](int64_t i) {
    return ask.snapshot.fleet().host(hosts[static_cast<size_t>(i)].host).leaf;
  };
  std::vector<int32_t> groups;
  for (int64_t begin = 0, left = (size + limit - 1) / limit; left > 0; --left) {
    int64_t last = std::min(size, begin + limit), first = std::max(begin + 1, size - (left - 1) * limit);
    int64_t end = last;
    for (int64_t cut = last; cut >= first && cut < size; --cut) {
      if (leaf_at(cut - 1) == leaf_at(cut)) continue;
      end = cut;
      break;
    }
    groups.push_back(static_cast<int32_t>(end - begin));
    begin = end;
  }
  return groups;
}

}  // namespace

Plan make_plan(const Ask& ask, std::vector<HostGpus> hosts) {
  Plan plan;
  plan.spares = choose_spares(ask, hosts);
  plan.groups = split_into_groups(ask, hosts);
  plan.hosts = std::move(hosts);
  plan.gpus = ask.gpus;
  plan.start_ns = ask.start_ns;
  plan.end_ns = ask.start_ns + ask.request.duration_ns;
  if (!ask.snapshot.is_slice()) {
    plan.microusd_per_gpu_hour =
        fleet::series_catalogue()[static_cast<size_t>(ask.series)].microusd_per_gpu_hour;
    plan.price_microusd = cost_microusd(plan.gpus, ask.request.duration_ns, plan.microusd_per_gpu_hour);
  }
  plan.explanation = explain_place(ask, plan);
  return plan;
}

}  // namespace th::reserve::detail
