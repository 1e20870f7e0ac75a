#pragma once
// Packs pods that ask for fractions of a GPU, one GPU or several onto hosts with limited CPU and memory, so
// that what is left over stays useful to the pods that usually come. docs/design/0003-packing.md tells how
// and why.

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace th::reserve {

inline constexpr int32_t kMaxGpusPerHost = 8;
inline constexpr int32_t kWholeGpuMilli = 1000;
inline constexpr int32_t kMaxGpuModels = 64;
inline constexpr uint64_t kAnyGpuModel = ~uint64_t{0};

/// What is left on a host.
struct HostRoom {
  int64_t cpu_milli = 0;
  int64_t memory_mib = 0;
  int32_t model = 0;  // < kMaxGpuModels; the caller's numbering
  int32_t num_gpus = 0;
  std::array<int16_t, kMaxGpusPerHost> free_milli{};  // of each GPU, 0 .. 1000; 0 beyond num_gpus

  bool operator==(const HostRoom&) const = default;
};

/// What a pod asks for: `num_gpus` GPUs, of each `gpu_milli` thousandths. num_gpus == 0: CPU only, on any
/// model.
struct PodShape {
  int64_t cpu_milli = 0;
  int64_t memory_mib = 0;
  int32_t num_gpus = 0;
  int32_t gpu_milli = 0;
  uint64_t models = kAnyGpuModel;  // bit m: model m will do

  int64_t total_milli() const { return int64_t{num_gpus} * gpu_milli; }
  bool operator==(const PodShape&) const = default;
};

struct TypicalPod {
  PodShape shape;
  double frequency = 0;  // on any positive scale
};

using GpuSet = uint8_t;  // bit i: GPU i of the host

int64_t idle_milli(const HostRoom& room);
bool fits(const HostRoom& room, const PodShape& pod);
/// The fitting GPUs with the least free, the first of equals. Needs fits().
GpuSet tightest_gpus(const HostRoom& room, const PodShape& pod);
/// The room after the pod was put on these GPUs. Needs fits(), and `gpus` that have the room.
HostRoom take(HostRoom room, const PodShape& pod, GpuSet gpus);
/// GPU sets worth trying: a fraction may go to any GPU with the room (one of those with equal room), all else
/// to the tightest. Needs fits(). Returns: how many of `out` are filled.
int32_t gpu_choices(const HostRoom& room, const PodShape& pod, std::span<GpuSet, kMaxGpusPerHost> out);

/// Demand for GPUs by the models that will do, spread over the models so that the fullest is as empty as it
/// can be.
class ModelLoad {
 public:
  explicit ModelLoad(std::span<const TypicalPod> typical);
  /// Demand as large as what is idle: what of it must go to each model, because its pods name models.
  void spread(std::span<const int64_t> idle_milli_by_model);
  /// Of model m's idle milli-GPU, the part that such demand will need; above 1 where it exceeds them.
  double ratio(size_t model) const { return idle_[model] > 0 ? load_[model] / idle_[model] : 0; }
  /// Of the demand with these models, the part that goes to model m.
  double part(uint64_t models, size_t model) const;

 private:
  struct Demand {
    uint64_t models = 0;
    double share = 0;  // of all GPU demand
    std::array<double, kMaxGpuModels> parts{};
  };
  void fill(Demand& demand, double milli);

  std::vector<Demand> demands_;
  std::array<double, kMaxGpuModels> idle_{}, load_{};
};

struct Packed {
  double score = 0;  // the larger the better
  GpuSet gpus = 0;
};

/// Scores a place by what it leaves: how many thousandths of GPUs the pods that usually come could still use
/// on that host, after against before. Nothing is set per workload. Thread: one owner (values are memoised).
class Packer {
 public:
  /// `typical`: what usually comes, CPU-only pods included. With no GPU pod in it, every place scores alike.
  Packer(std::span<const TypicalPod> typical, std::span<const int64_t> idle_milli_by_model);

  /// Useful milli-GPU of such a host. Cost: O(1) when seen before, else some 20 µs.
  double value(const HostRoom& room);
  /// The best GPUs of the host for the pod. Needs fits(). The same for the same arguments, so a caller may
  /// keep it until the room changes.
  Packed score(const HostRoom& room, const PodShape& pod);
  /// What a milli-GPU on this model costs beyond its use, since pods that accept nothing else will need it: 0
  /// ..
  /// 1. Weigh a score with it before scores of different models are compared.
  double price(int32_t model) const { return price_[static_cast<size_t>(model)]; }
  /// Renews price() from what is idle now. Call it every few dozen pods. Cost: O(sets of models that pods
  /// name).
  void set_idle(std::span<const int64_t> idle_milli_by_model);

 private:
  struct Key {
    std::array<uint64_t, 4> words;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };

  static Key key_of(const HostRoom& room);
  void draw_sequences(std::span<const TypicalPod> typical, size_t model);
  double useful_milli(const HostRoom& room) const;
  double gang_milli(const HostRoom& room) const;

  ModelLoad load_;
  std::vector<TypicalPod> gangs_;                 // of more than one GPU; frequency = share of GPU demand
  std::vector<std::vector<PodShape>> sequences_;  // by model, kSequences × kSequencePods
  std::array<double, kMaxGpuModels> price_{};
  std::unordered_map<Key, double, KeyHash> values_;
};

/// The score of a place with the price of its model: value that is lost there counts (1 + price) times.
inline double weigh(double score, double price, const PodShape& pod) {
  return score - price * (static_cast<double>(pod.total_milli()) - score);
}

}  // namespace th::reserve
