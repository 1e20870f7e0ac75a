#include "sim/packing/replay.h"

#include <algorithm>
#include <map>
#include <string>

namespace th::sim {
namespace {

void mix(uint64_t& hash, uint64_t word) {
  hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
  hash ^= hash >> 29;
}

int64_t total_milli(const PackingTrace& trace, std::span<const int32_t> pods) {
  int64_t sum = 0;
  for (int32_t pod : pods) sum += trace.classes[static_cast<size_t>(pod)].shape.total_milli();
  return sum;
}

double percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

int64_t PackingTrace::capacity_milli() const {
  int64_t sum = 0;
  for (int64_t idle : idle_by_model) sum += idle;
  return sum;
}

PackingTrace make_packing_trace(const std::vector<OpenbNode>& nodes, const std::vector<OpenbPod>& pods) {
  PackingTrace trace;
  std::map<std::string, int32_t> models;
  for (const OpenbNode& node : nodes) {
    auto model = models.try_emplace(node.model, static_cast<int32_t>(models.size())).first->second;
    HostRoom room{node.cpu_milli, node.memory_mib, model, node.gpus, {}};
    std::fill_n(room.free_milli.begin(), node.gpus, static_cast<int16_t>(reserve::kWholeGpuMilli));
    trace.hosts.push_back(room);
    trace.idle_by_model.resize(models.size());
    trace.idle_by_model[static_cast<size_t>(model)] += reserve::idle_milli(room);
  }
  std::map<OpenbPod, int32_t, decltype([](const OpenbPod& a, const OpenbPod& b) {
             return std::tie(a.cpu_milli, a.memory_mib, a.gpus, a.gpu_milli, a.models) <
                    std::tie(b.cpu_milli, b.memory_mib, b.gpus, b.gpu_milli, b.models);
           })>
      seen;
  for (const OpenbPod& pod : pods) {
    auto [at, fresh] = seen.try_emplace(pod, static_cast<int32_t>(trace.classes.size()));
    if (fresh) {
      PodShape shape{pod.cpu_milli, pod.memory_mib, pod.gpus, pod.gpu_milli, reserve::kAnyGpuModel};
      if (!pod.models.empty()) shape.models = 0;
      for (const std::string& name : pod.models) {
        if (auto model = models.find(name); model != models.end())
          shape.models |= uint64_t{1} << model->second;
      }
      trace.classes.push_back({shape, 0});
    }
    trace.classes[static_cast<size_t>(at->second)].frequency += 1;
    trace.pods.push_back(at->second);
  }
  return trace;
}

std::vector<int32_t> arrivals(const PackingTrace& trace, uint64_t seed) {
  Prng prng(seed);
  std::vector<int32_t> pods = trace.pods;
  for (size_t i = pods.size(); i > 1; --i) std::swap(pods[i - 1], pods[prng.below(i)]);
  const auto limit = static_cast<int64_t>(kDemandLimit * static_cast<double>(trace.capacity_milli()));
  int64_t demand = total_milli(trace, pods);
  for (;;) {
    int32_t pod = trace.pods[prng.below(trace.pods.size())];
    demand += trace.classes[static_cast<size_t>(pod)].shape.gpu_milli;
    if (demand > limit) return pods;
    pods.push_back(pod);
  }
}

HostPool::HostPool(const PackingTrace& trace, PackingPolicy& policy)
    : trace_(trace),
      policy_(policy),
      hosts_(trace.hosts),
      idle_by_model_(trace.idle_by_model),
      kept_(trace.hosts.size() * trace.classes.size()) {}

void HostPool::look(size_t host, size_t pod_class, Kept& kept) {
  const PodShape& pod = trace_.classes[pod_class].shape;
  if (!reserve::fits(hosts_[host], pod)) {
    kept.state = Kept::kDoesNot;
    return;
  }
  Packed packed = policy_.score(hosts_[host], pod);
  kept = {static_cast<float>(packed.score), packed.gpus, Kept::kFits};
}

int32_t HostPool::put(int32_t pod_class, reserve::GpuSet& gpus) {
  if (pods_seen_++ % kPodsPerUpdate == 0) policy_.set_idle(idle_by_model_);
  const auto index = static_cast<size_t>(pod_class);
  const PodShape& pod = trace_.classes[index].shape;
  std::array<double, reserve::kMaxGpuModels> price{};
  for (size_t m = 0; m < idle_by_model_.size(); ++m) price[m] = policy_.price(static_cast<int32_t>(m));
  Kept* row = &kept_[index * hosts_.size()];
  int32_t best = -1;
  double best_score = 0;
  for (size_t host = 0; host < hosts_.size(); ++host) {
    Kept& kept = row[host];
    if (kept.state == Kept::kStale || (policy_.fickle() && kept.state == Kept::kFits))
      look(host, index, kept);
    if (kept.state != Kept::kFits) continue;
    double score = reserve::weigh(kept.score, price[static_cast<size_t>(hosts_[host].model)], pod);
    if (best >= 0 && score <= best_score) continue;
    best = static_cast<int32_t>(host);
    best_score = score;
  }
  if (best < 0) return -1;
  HostRoom& room = hosts_[static_cast<size_t>(best)];
  gpus = row[best].gpus;
  room = reserve::take(room, pod, gpus);
  idle_by_model_[static_cast<size_t>(room.model)] -= pod.total_milli();
  for (size_t c = 0; c < trace_.classes.size(); ++c)
    kept_[c * hosts_.size() + static_cast<size_t>(best)].state = Kept::kStale;
  return best;
}

PackingRun replay_packing(const PackingTrace& trace, PackingPolicy& policy, uint64_t seed, Env& env) {
  PackingRun run;
  HostPool pool(trace, policy);
  const int64_t capacity = trace.capacity_milli();
  const std::vector<TypicalPod> typical = fgd_typical_pods(trace.classes);
  int64_t arrived = 0, allocated = 0;
  size_t next = 0;
  int32_t next_pct = 1;
  for (int32_t pod : arrivals(trace, seed)) {
    const int64_t milli = trace.classes[static_cast<size_t>(pod)].shape.total_milli();
    arrived += milli;
    for (; next < kArrivedPct.size() && arrived * 100 > capacity * kArrivedPct[next]; ++next)
      run.alloc_pct[next] = percent(allocated, capacity);
    if (arrived * 100 > capacity * next_pct) {
      double fragment = 0;
      for (const HostRoom& room : pool.hosts()) fragment += fgd_fragment_milli(room, typical);
      next_pct = static_cast<int32_t>(percent(arrived, capacity));
      run.samples.push_back(
          {next_pct++, percent(allocated, capacity), 100 * fragment / static_cast<double>(capacity)});
    }
    const int64_t start_ns = env.monotonic_ns();
    reserve::GpuSet gpus = 0;
    const int32_t host = pool.put(pod, gpus);
    run.decision_ns.push_back(env.monotonic_ns() - start_ns);
    ++run.pods;
    mix(run.hash, static_cast<uint64_t>(host) << 8 | gpus);
    if (host < 0) continue;
    ++run.placed;
    allocated += milli;
  }
  for (; next < kArrivedPct.size(); ++next) run.alloc_pct[next] = percent(allocated, capacity);
  return run;
}

}  // namespace th::sim
