#pragma once
// Who gets a pod: the product's packing and the four published policies that the FGD paper (Weng et al.,
// ATC'23) compares, under one interface.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/env.h"
#include "base/result.h"
#include "reserve/packing.h"

namespace th::sim {

using reserve::HostRoom;
using reserve::Packed;
using reserve::PodShape;
using reserve::TypicalPod;

/// "random", "bestfit", "dotprod", "fgd", "thunderhead".
const std::vector<std::string>& packing_policies();

/// Thread: one owner.
class PackingPolicy {
 public:
  virtual ~PackingPolicy() = default;
  /// A place of the pod on this host. Depends on nothing but its arguments unless fickle(). Needs fits().
  virtual Packed score(const HostRoom& room, const PodShape& pod) = 0;
  /// What value on a GPU model costs beyond itself; see reserve::weigh().
  virtual double price(int32_t) const { return 0; }
  /// Idle milli-GPU by model, told every kPodsPerUpdate pods.
  virtual void set_idle(std::span<const int64_t>) {}
  /// A score may not be kept: it is drawn.
  virtual bool fickle() const { return false; }
};

inline constexpr int64_t kPodsPerUpdate = 64;

/// `typical`: every class of the list with its count; `idle_by_model`: milli-GPU before the first pod.
/// Errors: kInvalidArgument for a name that does not exist.
Result<std::unique_ptr<PackingPolicy>> make_packing_policy(std::string_view name,
                                                           const std::vector<TypicalPod>& typical,
                                                           std::span<const int64_t> idle_by_model,
                                                           uint64_t seed);

/// FGD's typical pods: classes without memory, most frequent first (then in the order given) until they make
/// up 95 % of the pods; frequencies sum to 1.
std::vector<TypicalPod> fgd_typical_pods(const std::vector<TypicalPod>& typical);

/// FGD's fragmentation: idle milli-GPU that a typical pod, drawn by frequency, is expected not to be able to
/// use. All that is idle where the pod does not fit or needs no GPU; else what is idle on GPUs too small for
/// it.
double fgd_fragment_milli(const HostRoom& room, std::span<const TypicalPod> typical);

/// Scores before they are cut to integers 0 .. 100.
double bestfit_score(const HostRoom& room, const PodShape& pod);
double dotprod_score(const HostRoom& room, const PodShape& pod);
/// `before`, `after`: fgd_fragment_milli.
double fgd_score(double before, double after);

}  // namespace th::sim
