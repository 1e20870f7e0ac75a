#pragma once
// Packs a stream of pods onto hosts, each pod once, none ever leaves: the protocol of the FGD paper (Weng et
// al., ATC'23) as its authors' simulator runs it.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/packing/policies.h"
#include "sim/trace/openb.h"

namespace th::sim {

/// Lists as the policies see them.
struct PackingTrace {
  std::vector<HostRoom> hosts;         // by name
  std::vector<int64_t> idle_by_model;  // milli-GPU of all hosts, by HostRoom::model
  std::vector<TypicalPod> classes;     // each shape once, in the order of the list, with its count
  std::vector<int32_t> pods;           // class of each, in the order of the list

  int64_t capacity_milli() const;
};

/// A model that no node has stays in a pod's wish as one that nothing fits.
PackingTrace make_packing_trace(const std::vector<OpenbNode>& nodes, const std::vector<OpenbPod>& pods);

/// The list shuffled, and pods drawn from it with replacement appended while the demand stays within
/// kDemandLimit of the fleet's GPUs. An appended pod of several GPUs counts as one of them, as in the
/// authors' simulator.
std::vector<int32_t> arrivals(const PackingTrace& trace, uint64_t seed);
inline constexpr double kDemandLimit = 1.3;

/// Where each pod went. Hosts are looked at in their order, so that the first of equals gets it.
class HostPool {
 public:
  HostPool(const PackingTrace& trace, PackingPolicy& policy);
  /// Returns: the host, or -1 when the pod fits nowhere. Cost: O(hosts) for scores that are kept, and a score
  /// for each host that changed since such a pod came.
  int32_t put(int32_t pod_class, reserve::GpuSet& gpus);
  std::span<const HostRoom> hosts() const { return hosts_; }

 private:
  struct Kept {
    float score = 0;
    reserve::GpuSet gpus = 0;
    enum : uint8_t { kStale, kFits, kDoesNot } state = kStale;
  };
  void look(size_t host, size_t pod_class, Kept& kept);

  const PackingTrace& trace_;
  PackingPolicy& policy_;
  std::vector<HostRoom> hosts_;
  std::vector<int64_t> idle_by_model_;
  std::vector<Kept> kept_;  // class × host
  int64_t pods_seen_ = 0;
};

/// Demand that has arrived, in percent of the fleet's GPUs, at which allocation is read.
inline constexpr std::array<int32_t, 4> kArrivedPct = {95, 100, 110, 130};

/// When demand of so many percent of the fleet has arrived.
struct PackingSample {
  int32_t arrived_pct = 0;
  double alloc_pct = 0;  // of the fleet's milli-GPU
  double fragment_pct =
      0;  // of the fleet's milli-GPU: what is idle and lost to the typical pods (FGD's measure)
};

struct PackingRun {
  std::array<double, kArrivedPct.size()> alloc_pct{};  // of the fleet's milli-GPU
  std::vector<PackingSample> samples;                  // one a percent of arrived demand
  int64_t pods = 0;
  int64_t placed = 0;
  uint64_t hash = 0;  // of all decisions
  std::vector<int64_t> decision_ns;
};

/// One run. `monotonic_ns` times the decisions and has no part in the result.
PackingRun replay_packing(const PackingTrace& trace, PackingPolicy& policy, uint64_t seed, Env& env);

}  // namespace th::sim
