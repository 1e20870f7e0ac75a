#include "reserve/defrag.h"

#include <algorithm>
#include <bit>
#include <set>
#include <utility>

#include "reserve/room.h"

namespace th::reserve {
namespace {

int64_t gpus_of(const Claim& claim) {
  int64_t gpus = 0;
  for (const HostGpus& part : claim.hosts) gpus += std::popcount(part.gpus);
  return gpus;
}

int64_t leaves_of(const Fleet& fleet, const std::vector<HostGpus>& hosts) {
  std::set<fleet::LeafIndex> leaves;
  for (const HostGpus& part : hosts) leaves.insert(fleet.host(part.host).leaf);
  return static_cast<int64_t>(leaves.size());
}

std::optional<Plan> place_now(const Snapshot& snapshot, const Request& gang, Policy policy, int64_t now_ns) {
  policy.find_changes = false;
  auto plan = decide(snapshot, gang, policy, now_ns);
  if (!plan) return std::nullopt;
  return *std::move(plan);
}

/// The request that gives a claim another place for the rest of its window.
Request move_request(const Snapshot& snapshot, const Claim& claim, int64_t now_ns) {
  Request request;
  request.name = claim.id;
  request.gpus = gpus_of(claim);
  request.duration_ns = claim.end_ns - now_ns;
  request.max_switches = static_cast<int32_t>(leaves_of(snapshot.fleet(), claim.hosts));
  if (!snapshot.is_slice()) request.series = snapshot.fleet().series_of(claim.hosts[0].host).name;
  return request;
}

struct Trial {
  Snapshot snapshot;
  std::vector<Move> moves;
  std::optional<Plan> gang;
  int64_t cost_gpu_ns = 0;
};

/// One more move: off the leaves in `clear`, to hosts elsewhere.
bool move_off(Trial& trial, const Movable& movable, const std::set<fleet::LeafIndex>& clear, int64_t now_ns) {
  const Fleet& fleet = trial.snapshot.fleet();
  Snapshot without = trial.snapshot.without_claim(movable.claim);
  Snapshot elsewhere = without;
  for (fleet::LeafIndex leaf : clear) {  // what is to be cleared is not moved to
    const fleet::Leaf& entry = fleet.leaf(leaf);
    for (HostIndex host = entry.first_host; host < entry.first_host + entry.num_hosts; ++host) {
      if (elsewhere.host_use(host, now_ns).gpus != 0) elsewhere = elsewhere.with_out_of_use(host, "cleared");
    }
  }
  auto place = place_now(elsewhere, move_request(trial.snapshot, movable.claim, now_ns), {}, now_ns);
  if (!place || place->gpus != gpus_of(movable.claim)) return false;
  Claim moved = movable.claim;
  moved.start_ns = now_ns;
  moved.hosts = place->hosts;
  auto after = without.with_claim(moved);
  if (!after) return false;
  trial.moves.push_back({movable.claim.id, movable.claim.hosts, moved.hosts});
  trial.cost_gpu_ns += gpus_of(movable.claim) * movable.move_ns;
  trial.snapshot = *std::move(after);
  return true;
}

/// GPU time that the gang wins by its place in the trial beside the place that it has without moves.
int64_t gain_of(const Fleet& fleet, const Plan& plan, const std::optional<Plan>& before,
                const DefragOptions& options) {
  if (!before) return plan.gpus * options.wait_ns;
  int64_t fewer = leaves_of(fleet, before->hosts) - leaves_of(fleet, plan.hosts);
  int64_t gpu_ns = plan.gpus * (plan.end_ns - plan.start_ns);
  return fewer <= 0 ? 0 : gpu_ns / 1'000'000 * options.switch_ppm * fewer;
}

/// Leaves from which movables of few GPUs could be moved, those first that want least moved for what they
/// free.
std::vector<fleet::LeafIndex> leaves_to_clear(const Snapshot& snapshot, std::span<const Movable> movables,
                                              int64_t now_ns) {
  const Fleet& fleet = snapshot.fleet();
  std::vector<int64_t> movable(fleet.leaves().size()), fixed(fleet.leaves().size());
  for (size_t i = 0; i < fleet.hosts().size(); ++i) {
    HostUse use = snapshot.host_use(static_cast<HostIndex>(i), now_ns);
    auto leaf = static_cast<size_t>(fleet.hosts()[i].leaf);
    fixed[leaf] += use.out_of_use ? std::popcount(use.gpus) : std::popcount(use.busy);
  }
  for (const Movable& entry : movables) {
    for (const HostGpus& part : entry.claim.hosts) {
      movable[static_cast<size_t>(fleet.host(part.host).leaf)] += std::popcount(part.gpus);
    }
  }
  std::vector<fleet::LeafIndex> leaves;
  for (size_t i = 0; i < movable.size(); ++i) {
    fixed[i] -= movable[i];
    if (movable[i] > 0) leaves.push_back(static_cast<fleet::LeafIndex>(i));
  }
  std::ranges::stable_sort(leaves, {}, [&](fleet::LeafIndex leaf) {
    auto i = static_cast<size_t>(leaf);
    return std::pair(fixed[i], movable[i]);
  });
  return leaves;
}

}  // namespace

Fragmentation fragmentation(const Snapshot& snapshot, int64_t time_ns) {
  Fragmentation result;
  const Fleet& fleet = snapshot.fleet();
  for (size_t s = 0; s < fleet::kNumSeries; ++s) {
    auto series = static_cast<fleet::SeriesIndex>(s);
    if (fleet.num_gpus(series) == 0) continue;
    int64_t per_host = fleet::series_catalogue()[s].gpus_per_host;
    detail::Query query{snapshot.root(), series, time_ns, time_ns + 1};
    for (size_t i = 0; i < fleet.leaves().size(); ++i) {
      int64_t hosts = detail::leaf_room(query, static_cast<fleet::LeafIndex>(i));
      result.free_gpus += hosts * per_host;
      if (hosts == fleet.leaves()[i].num_hosts) result.whole_leaf_gpus += hosts * per_host;
    }
  }
  if (result.free_gpus > 0) {
    result.share = 1 - static_cast<double>(result.whole_leaf_gpus) / static_cast<double>(result.free_gpus);
  }
  return result;
}

std::optional<DefragPlan> plan_defrag(const Snapshot& snapshot, const Request& gang, const Policy& policy,
                                      int64_t now_ns, std::span<const Movable> movables,
                                      const DefragOptions& options) {
  const Fleet& fleet = snapshot.fleet();
  std::optional<Plan> before = place_now(snapshot, gang, policy, now_ns);
  std::optional<DefragPlan> best;
  Trial trial{snapshot, {}, {}, 0};
  std::set<fleet::LeafIndex> clear;
  std::set<std::string> moved;
  for (fleet::LeafIndex leaf : leaves_to_clear(snapshot, movables, now_ns)) {
    clear.insert(leaf);
    for (const Movable& movable : movables) {
      bool is_here = std::ranges::any_of(
          movable.claim.hosts, [&](const HostGpus& part) { return fleet.host(part.host).leaf == leaf; });
      bool is_running = movable.claim.start_ns <= now_ns && now_ns < movable.claim.end_ns;
      if (!is_here || !is_running || moved.contains(movable.claim.id)) continue;
      if (trial.moves.size() == options.max_moves) return best;
      if (!move_off(trial, movable, clear, now_ns)) continue;
      moved.insert(movable.claim.id);
      auto plan = place_now(trial.snapshot, gang, policy, now_ns);
      if (!plan) continue;
      int64_t gain = gain_of(fleet, *plan, before, options);
      int64_t best_net = best ? best->gain_gpu_ns - best->cost_gpu_ns : 0;
      if (gain - trial.cost_gpu_ns <= best_net) continue;
      best = DefragPlan{trial.moves, *std::move(plan), gain, trial.cost_gpu_ns};
    }
  }
  return best;
}

}  // namespace th::reserve
