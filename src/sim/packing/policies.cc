#include "sim/packing/policies.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace th::sim {
namespace {

using reserve::GpuSet;
using reserve::kMaxGpusPerHost;

// The largest host of the trace, by which the published policies scale.
constexpr double kMaxCpuMilli = 128'000;
constexpr double kMaxGpuMilli = 8'000;

double cut(double score) { return std::clamp(std::floor(score), 0.0, 100.0); }

class Random final : public PackingPolicy {
 public:
  explicit Random(uint64_t seed) : prng_(seed) {}
  bool fickle() const override { return true; }
  Packed score(const HostRoom& room, const PodShape& pod) override {
    GpuSet gpus = 0;
    for (int32_t left = pod.num_gpus; left > 0; --left) {
      std::array<int32_t, kMaxGpusPerHost> fitting;
      uint64_t count = 0;
      for (int32_t i = 0; i < room.num_gpus; ++i) {
        if ((gpus >> i & 1) == 0 && room.free_milli[static_cast<size_t>(i)] >= pod.gpu_milli)
          fitting[count++] = i;
      }
      gpus = static_cast<GpuSet>(gpus | 1u << fitting[prng_.below(count)]);
    }
    return {prng_.uniform(), gpus};
  }

 private:
  Prng prng_;
};

class BestFit final : public PackingPolicy {
 public:
  Packed score(const HostRoom& room, const PodShape& pod) override {
    return {cut(bestfit_score(room, pod)), reserve::tightest_gpus(room, pod)};
  }
};

class DotProd final : public PackingPolicy {
 public:
  Packed score(const HostRoom& room, const PodShape& pod) override {
    return {cut(dotprod_score(room, pod)), reserve::tightest_gpus(room, pod)};
  }
};

class Fgd final : public PackingPolicy {
 public:
  explicit Fgd(std::vector<TypicalPod> typical) : typical_(std::move(typical)) {}
  Packed score(const HostRoom& room, const PodShape& pod) override {
    std::array<GpuSet, kMaxGpusPerHost> choices;
    const int32_t count = reserve::gpu_choices(room, pod, choices);
    const double before = fgd_fragment_milli(room, typical_);
    Packed best;
    for (int32_t i = 0; i < count; ++i) {
      GpuSet gpus = choices[static_cast<size_t>(i)];
      double score = fgd_score(before, fgd_fragment_milli(reserve::take(room, pod, gpus), typical_));
      if (i == 0 || score > best.score) best = {score, gpus};
    }
    best.score = cut(best.score);
    return best;
  }

 private:
  std::vector<TypicalPod> typical_;
};

class Thunderhead final : public PackingPolicy {
 public:
  Thunderhead(std::span<const TypicalPod> typical, std::span<const int64_t> idle_by_model)
      : packer_(typical, idle_by_model) {}
  Packed score(const HostRoom& room, const PodShape& pod) override { return packer_.score(room, pod); }
  double price(int32_t model) const override { return packer_.price(model); }
  void set_idle(std::span<const int64_t> idle) override { packer_.set_idle(idle); }

 private:
  reserve::Packer packer_;
};

}  // namespace

const std::vector<std::string>& packing_policies() {
  static const std::vector<std::string> names = {"random", "bestfit", "dotprod", "fgd", "thunderhead"};
  return names;
}

double bestfit_score(const HostRoom& room, const PodShape& pod) {
  double cpu = static_cast<double>(room.cpu_milli - pod.cpu_milli);
  double gpu = static_cast<double>(reserve::idle_milli(room) - pod.total_milli());
  return (1 - (0.5 * cpu / kMaxCpuMilli + 0.5 * gpu / kMaxGpuMilli)) * 100;
}

double dotprod_score(const HostRoom& room, const PodShape& pod) {
  double cpu = static_cast<double>(room.cpu_milli) * static_cast<double>(pod.cpu_milli);
  double gpu = static_cast<double>(reserve::idle_milli(room)) * static_cast<double>(pod.total_milli());
  return (1 - (cpu / (kMaxCpuMilli * kMaxCpuMilli) + gpu / (kMaxGpuMilli * kMaxGpuMilli)) / 2) * 100;
}

double fgd_score(double before, double after) { return 100 / (1 + std::exp((after - before) / 1000)); }

double fgd_fragment_milli(const HostRoom& room, std::span<const TypicalPod> typical) {
  const auto idle = static_cast<double>(reserve::idle_milli(room));
  double sum = 0;
  for (const TypicalPod& pod : typical) {
    const PodShape& shape = pod.shape;
    if (shape.num_gpus == 0 || !reserve::fits(room, shape)) {
      sum += pod.frequency * idle;
      continue;
    }
    int64_t small = 0;
    for (size_t i = 0; i < static_cast<size_t>(room.num_gpus); ++i)
      small += room.free_milli[i] < shape.gpu_milli ? room.free_milli[i] : 0;
    sum += pod.frequency * static_cast<double>(small);
  }
  return sum;
}

std::vector<TypicalPod> fgd_typical_pods(const std::vector<TypicalPod>& typical) {
  std::vector<TypicalPod> classes;
  double total = 0;
  for (TypicalPod pod : typical) {
    pod.shape.memory_mib = 0;
    total += pod.frequency;
    auto same = std::find_if(classes.begin(), classes.end(),
                             [&](const TypicalPod& other) { return other.shape == pod.shape; });
    if (same == classes.end()) {
      classes.push_back(pod);
    } else {
      same->frequency += pod.frequency;
    }
  }
  std::stable_sort(classes.begin(), classes.end(),
                   [](const TypicalPod& a, const TypicalPod& b) { return a.frequency > b.frequency; });
  double kept = 0;
  size_t count = 0;
  while (count < classes.size() && kept < 0.95 * total) kept += classes[count++].frequency;
  classes.resize(count);
  for (TypicalPod& pod : classes) pod.frequency /= kept;
  return classes;
}

Result<std::unique_ptr<PackingPolicy>> make_packing_policy(std::string_view name,
                                                           const std::vector<TypicalPod>& typical,
                                                           std::span<const int64_t> idle_by_model,
                                                           uint64_t seed) {
  std::unique_ptr<PackingPolicy> policy;
  if (name == "random") policy = std::make_unique<Random>(seed);
  if (name == "bestfit") policy = std::make_unique<BestFit>();
  if (name == "dotprod") policy = std::make_unique<DotProd>();
  if (name == "fgd") policy = std::make_unique<Fgd>(fgd_typical_pods(typical));
  if (name == "thunderhead") policy = std::make_unique<Thunderhead>(typical, idle_by_model);
  if (policy == nullptr) {
    return fail(Code::kInvalidArgument, "there is no packing policy '" + std::string(name) + "'" +
                                            did_you_mean(name, packing_policies()) + "; there are " +
                                            join(packing_policies(), ", "));
  }
  return policy;
}

}  // namespace th::sim
