#include "reserve/packing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "base/env.h"
#include "base/result.h"

namespace th::reserve {
namespace {

// Measured on the OpenB lists and on lists resampled from them; docs/design/0003-packing.md has the table.
constexpr int32_t kSequences = 32;
constexpr int32_t kPodsPerGpu = 8;
constexpr int32_t kSequencePods = kPodsPerGpu * kMaxGpusPerHost;
constexpr uint64_t kSequenceSeed = 1;
constexpr double kGangWeight = 0.05;
constexpr double kOwnShare = 0.25;
constexpr double kStepMilli = 40;  // values closer than this are equal: the first host of them fills up first
constexpr int32_t kSpreadRounds = 8;
constexpr size_t kMaxValues = size_t{1} << 21;

}  // namespace

int64_t idle_milli(const HostRoom& room) {
  int64_t sum = 0;
  for (int32_t i = 0; i < room.num_gpus; ++i) sum += room.free_milli[static_cast<size_t>(i)];
  return sum;
}

bool fits(const HostRoom& room, const PodShape& pod) {
  if (pod.cpu_milli > room.cpu_milli || pod.memory_mib > room.memory_mib) return false;
  if (pod.num_gpus == 0) return true;
  if ((pod.models >> room.model & 1) == 0) return false;
  int32_t enough = 0;
  for (int32_t i = 0; i < room.num_gpus; ++i)
    enough += room.free_milli[static_cast<size_t>(i)] >= pod.gpu_milli ? 1 : 0;
  return enough >= pod.num_gpus;
}

GpuSet tightest_gpus(const HostRoom& room, const PodShape& pod) {
  GpuSet gpus = 0;
  for (int32_t n = 0; n < pod.num_gpus; ++n) {
    int32_t best = -1;
    for (int32_t i = 0; i < room.num_gpus; ++i) {
      int16_t free = room.free_milli[static_cast<size_t>(i)];
      if ((gpus >> i & 1) != 0 || free < pod.gpu_milli) continue;
      if (best < 0 || free < room.free_milli[static_cast<size_t>(best)]) best = i;
    }
    TH_CHECK(best >= 0);
    gpus = static_cast<GpuSet>(gpus | 1u << best);
  }
  return gpus;
}

HostRoom take(HostRoom room, const PodShape& pod, GpuSet gpus) {
  room.cpu_milli -= pod.cpu_milli;
  room.memory_mib -= pod.memory_mib;
  for (; gpus != 0; gpus &= static_cast<GpuSet>(gpus - 1))
    room.free_milli[static_cast<size_t>(std::countr_zero(gpus))] -= static_cast<int16_t>(pod.gpu_milli);
  return room;
}

int32_t gpu_choices(const HostRoom& room, const PodShape& pod, std::span<GpuSet, kMaxGpusPerHost> out) {
  if (pod.num_gpus != 1 || pod.gpu_milli == kWholeGpuMilli) {
    out[0] = tightest_gpus(room, pod);
    return 1;
  }
  int32_t count = 0;
  for (size_t i = 0; i < static_cast<size_t>(room.num_gpus); ++i) {
    if (room.free_milli[i] < pod.gpu_milli) continue;
    auto begin = room.free_milli.begin();
    if (std::find(begin, begin + static_cast<int64_t>(i), room.free_milli[i]) !=
        begin + static_cast<int64_t>(i))
      continue;
    out[static_cast<size_t>(count++)] = static_cast<GpuSet>(1u << i);
  }
  return count;
}

ModelLoad::ModelLoad(std::span<const TypicalPod> typical) {
  double total = 0;
  std::map<uint64_t, double> by_models;
  for (const TypicalPod& pod : typical) {
    double demand = pod.frequency * static_cast<double>(pod.shape.total_milli());
    total += demand;
    if (demand > 0 && pod.shape.models != kAnyGpuModel) by_models[pod.shape.models] += demand;
  }
  for (const auto& [models, demand] : by_models) demands_.push_back({models, demand / total, {}});
}

void ModelLoad::fill(Demand& demand, double milli) {
  for (size_t m = 0; m < load_.size(); ++m) load_[m] -= demand.parts[m];
  demand.parts.fill(0);
  std::vector<size_t> models;
  for (size_t m = 0; m < load_.size(); ++m)
    if ((demand.models >> m & 1) != 0 && idle_[m] > 0) models.push_back(m);
  std::sort(models.begin(), models.end(), [&](size_t a, size_t b) {
    return std::pair(load_[a] * idle_[b], a) < std::pair(load_[b] * idle_[a], b);
  });
  // The emptiest models rise together to one level, up to where the next one stands.
  double idle = 0, load = 0, level = 0;
  size_t used = 0;
  for (; used < models.size() && (used == 0 || ratio(models[used]) < level); ++used) {
    idle += idle_[models[used]];
    load += load_[models[used]];
    level = (load + milli) / idle;
  }
  for (size_t i = 0; i < used; ++i) {
    const size_t m = models[i];
    demand.parts[m] = level * idle_[m] - load_[m];
    load_[m] += demand.parts[m];
  }
}

void ModelLoad::spread(std::span<const int64_t> idle_milli_by_model) {
  double total = 0;
  idle_.fill(0);
  load_.fill(0);
  for (size_t m = 0; m < idle_milli_by_model.size(); ++m) {
    idle_[m] = static_cast<double>(idle_milli_by_model[m]);
    total += idle_[m];
  }
  for (Demand& demand : demands_) demand.parts.fill(0);
  for (int32_t round = 0; round < kSpreadRounds; ++round)
    for (Demand& demand : demands_) fill(demand, demand.share * total);
}

double ModelLoad::part(uint64_t models, size_t model) const {
  std::array<double, kMaxGpuModels> rest{};
  for (size_t m = 0; m < rest.size(); ++m) rest[m] = std::max(0.0, idle_[m] - load_[m]);
  const std::array<double, kMaxGpuModels>* parts = &rest;
  for (const Demand& demand : demands_)
    if (demand.models == models) parts = &demand.parts;
  double sum = 0;
  for (double part : *parts) sum += part;
  return sum > 0 ? (*parts)[model] / sum : 0;
}

Packer::Packer(std::span<const TypicalPod> typical, std::span<const int64_t> idle_milli_by_model)
    : load_(typical), sequences_(idle_milli_by_model.size()) {
  TH_CHECK(idle_milli_by_model.size() <= kMaxGpuModels);
  set_idle(idle_milli_by_model);
  double total = 0;
  for (const TypicalPod& pod : typical) {
    double demand = pod.frequency * static_cast<double>(pod.shape.total_milli());
    total += demand;
    if (pod.shape.num_gpus > 1) gangs_.push_back({pod.shape, demand});
  }
  for (TypicalPod& gang : gangs_) gang.frequency /= total;
  for (size_t m = 0; total > 0 && m < sequences_.size(); ++m) draw_sequences(typical, m);
}

void Packer::draw_sequences(std::span<const TypicalPod> typical, size_t model) {
  std::vector<TypicalPod> pods;
  double sum = 0;
  for (TypicalPod pod : typical) {
    if (pod.shape.num_gpus == 0) continue;
    pod.frequency *= kOwnShare * load_.part(pod.shape.models, model) + (1 - kOwnShare);
    sum += pod.frequency;
    pods.push_back(pod);
  }
  Prng prng(kSequenceSeed);
  for (int32_t i = 0; i < kSequences * kSequencePods; ++i) {
    double at = prng.uniform() * sum;
    size_t k = 0;
    while (k + 1 < pods.size() && at >= pods[k].frequency) at -= pods[k++].frequency;
    sequences_[model].push_back(pods[k].shape);
  }
}

Packer::Key Packer::key_of(const HostRoom& room) {
  std::array<int16_t, kMaxGpusPerHost> sorted = room.free_milli;
  std::sort(sorted.begin(), sorted.end());
  Key key{};
  key.words[0] = static_cast<uint64_t>(room.cpu_milli) << 16 | static_cast<uint64_t>(room.model) << 8 |
                 static_cast<uint64_t>(room.num_gpus);
  key.words[1] = static_cast<uint64_t>(room.memory_mib);
  for (size_t i = 0; i < sorted.size(); ++i)
    key.words[2 + i / 4] |= static_cast<uint64_t>(sorted[i]) << (i % 4 * 16);
  return key;
}

size_t Packer::KeyHash::operator()(const Key& key) const {
  uint64_t hash = 0;
  for (uint64_t word : key.words) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 32;
  }
  return hash;
}

double Packer::useful_milli(const HostRoom& before) const {
  const std::vector<PodShape>& sequences = sequences_[static_cast<size_t>(before.model)];
  const int64_t idle = idle_milli(before);
  int64_t used = 0;
  for (size_t first = 0; first < sequences.size(); first += static_cast<size_t>(kSequencePods)) {
    HostRoom room = before;
    int64_t left = idle;
    for (int32_t i = 0; i < kPodsPerGpu * before.num_gpus && left > 0; ++i) {
      const PodShape& pod = sequences[first + static_cast<size_t>(i)];
      if (pod.total_milli() > left || !fits(room, pod)) continue;
      room = take(room, pod, tightest_gpus(room, pod));
      left -= pod.total_milli();
    }
    used += idle - left;
  }
  return static_cast<double>(used) / kSequences;
}

double Packer::gang_milli(const HostRoom& room) const {
  double sum = 0;
  for (const TypicalPod& gang : gangs_) {
    if (!fits(room, gang.shape)) continue;
    int64_t whole = 0;
    for (int32_t i = 0; i < room.num_gpus; ++i)
      whole += room.free_milli[static_cast<size_t>(i)] >= gang.shape.gpu_milli ? 1 : 0;
    int64_t times = whole / gang.shape.num_gpus;
    if (gang.shape.cpu_milli > 0) times = std::min(times, room.cpu_milli / gang.shape.cpu_milli);
    if (gang.shape.memory_mib > 0) times = std::min(times, room.memory_mib / gang.shape.memory_mib);
    sum += gang.frequency * static_cast<double>(times * gang.shape.total_milli());
  }
  return sum;
}

double Packer::value(const HostRoom& room) {
  TH_CHECK(static_cast<size_t>(room.model) < sequences_.size());
  if (values_.size() >= kMaxValues) values_.clear();
  auto [at, fresh] = values_.try_emplace(key_of(room), 0);
  if (fresh) at->second = useful_milli(room) + kGangWeight * gang_milli(room);
  return at->second;
}

Packed Packer::score(const HostRoom& room, const PodShape& pod) {
  std::array<GpuSet, kMaxGpusPerHost> choices;
  int32_t count = gpu_choices(room, pod, choices);
  const double before = value(room);
  Packed best;
  for (int32_t i = 0; i < count; ++i) {
    GpuSet gpus = choices[static_cast<size_t>(i)];
    double gain = value(take(room, pod, gpus)) + static_cast<double>(pod.total_milli()) - before;
    double score = kStepMilli * std::floor(gain / kStepMilli + 0.5);
    if (i == 0 || score > best.score) best = {score, gpus};
  }
  return best;
}

void Packer::set_idle(std::span<const int64_t> idle_milli_by_model) {
  load_.spread(idle_milli_by_model);
  for (size_t m = 0; m < price_.size(); ++m) price_[m] = std::pow(std::min(1.0, load_.ratio(m)), 2);
}

}  // namespace th::reserve
