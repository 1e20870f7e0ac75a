#pragma once
// Who has which GPUs when: an immutable picture of the fleet over time. The next picture shares all but the
// path that a claim touches: root → chunk of leaves → leaf.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "fleet/fleet.h"

namespace th::reserve {

using fleet::Fleet;
using fleet::HostIndex;
using fleet::RackIndex;

using GpuMask = uint32_t;  // bit i: GPU i of the host

/// The lowest `count` GPUs; of a whole host, all that it has.
inline GpuMask all_gpus(int64_t count) { return count >= 32 ? ~GpuMask{0} : (GpuMask{1} << count) - 1; }

struct HostGpus {
  HostIndex host = 0;
  GpuMask gpus = 0;

  bool operator==(const HostGpus&) const = default;
};

/// A hold, a lease, or (in a slice's snapshot) a job: these GPUs in [start_ns, end_ns). `id` is the caller's,
/// unique.
struct Claim {
  std::string id;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  std::vector<HostGpus> hosts;  // ascending, no host twice

  bool operator==(const Claim&) const = default;
};

struct HostUse {
  std::optional<std::string> out_of_use;  // the reason, when drained, cordoned or down
  GpuMask gpus = 0;                       // that exist in this snapshot
  GpuMask busy = 0;                       // claimed at the time asked for
  bool is_lemon = false;                  // fails too often: used only when nothing else fits
};

namespace detail {
struct Root;
}

/// Two kinds. `Snapshot(fleet)`: the fleet; requests get whole hosts, and rack power is counted.
/// `Snapshot::within(...)`: the inside of a slice; requests get GPUs, and power is not counted again, since
/// the slice's lease has it. Thread: immutable; a copy costs a pointer.
class Snapshot {
 public:
  explicit Snapshot(std::shared_ptr<const Fleet> fleet);
  /// Only these hosts and GPUs exist. Cost: O(leaves / 32 + hosts).
  static Snapshot within(std::shared_ptr<const Fleet> fleet, std::span<const HostGpus> hosts);

  const Fleet& fleet() const;
  const std::shared_ptr<const Fleet>& fleet_ptr() const;
  bool is_slice() const;

  /// The snapshot with this claim in it. Power and drains are not checked (decide does; what is owned is
  /// owned). Errors: kInvalidArgument (empty window, a GPU that does not exist), kAlreadyExists (a GPU is
  /// claimed twice in the window). Cost: O(leaves touched × hosts of a leaf).
  Result<Snapshot> with_claim(const Claim& claim) const;
  /// Without it; `id` and the hosts count. Nothing changes where it is not.
  Snapshot without_claim(const Claim& claim) const;
  /// A host out of use (drained, cordoned, down): nothing new is placed there, claims on it stay. nullopt:
  /// back in use.
  Snapshot with_out_of_use(HostIndex host, std::optional<std::string> reason) const;

  /// A host that fails too often: placed on only when nothing else fits.
  Snapshot with_lemon(HostIndex host, bool is_lemon) const;
  /// The site may draw at most so many watts in [start_ns, end_ns), beside its own budget; claims stay as
  /// they are, nothing new passes it. Several caps hold together. A copy without the cap is the snapshot
  /// before it.
  Snapshot with_power_cap(fleet::SiteIndex site, int64_t watts, int64_t start_ns, int64_t end_ns) const;

  HostUse host_use(HostIndex host, int64_t time_ns) const;
  /// Watts that the rack draws at a time: idle watts of each host with a claim, and the watts of each claimed
  /// GPU.
  int64_t rack_power_w(RackIndex rack, int64_t time_ns) const;
  int64_t row_power_w(fleet::RowIndex row, int64_t time_ns) const;
  int64_t site_power_w(fleet::SiteIndex site, int64_t time_ns) const;
  /// Claims on a host, by start.
  std::vector<std::shared_ptr<const Claim>> claims_on(HostIndex host) const;

  const detail::Root& root() const { return *root_; }

 private:
  explicit Snapshot(std::shared_ptr<const detail::Root> root) : root_(std::move(root)) {}
  std::shared_ptr<const detail::Root> root_;
};

}  // namespace th::reserve
