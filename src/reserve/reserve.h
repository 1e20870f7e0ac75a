#pragma once
// Decides: which GPUs, from when, at what price, and why; or why not, when at the earliest, and what would
// change it. Pure: no I/O, no clock, no globals, the same answer for the same input.
// docs/design/0001-reserve.md has the rules.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "request/slice_spec.h"
#include "reserve/snapshot.h"

namespace th::reserve {

/// Pack: as near together as it goes. Spread: as few hosts as it goes on any one leaf, then in any one rack.
enum class Layout { kPack, kSpread };

/// A gang: all of it or nothing. On a fleet's snapshot in whole hosts (gpus is rounded up to them), on a
/// slice's snapshot in GPUs. Leaf switches are counted as the fleet has them (docs/fleet.md).
struct Request {
  std::string name;
  int64_t gpus = 0;
  std::string series;  // "" on a slice's snapshot: any
  int64_t duration_ns = 0;
  int64_t start_ns = 0;  // not before; 0: now
  std::optional<int64_t> max_microusd_per_gpu_hour;
  Layout layout = Layout::kPack;
  int32_t max_switches = 0;   // at most so many leaf switches, or it waits; 0: any number
  int32_t segment = 0;        // hosts come in blocks of so many, each on one leaf; 0: no blocks
  int32_t spares = 0;         // hosts held back beside the gang: in each block, or for the whole without them
  int32_t gpus_per_host = 0;  // on a slice's snapshot: exactly so many on each host; 0: as they fit
  std::optional<std::vector<HostIndex>> only = {};  // ascending: on no other hosts
};

Request request_of(const request::SliceSpec& spec);

struct Policy {
  request::Quota quota;  // of whoever asks
  request::Usage usage;
  std::optional<int64_t> end_by_ns;  // nothing may end later (the slice's end)
  bool find_changes = true;          // false: leave Refusal::changes empty, which is much cheaper
  int32_t max_group_hosts = 0;       // VMs that one placement group of the cloud holds; 0: no limit
  bool split_groups = true;          // a larger gang is split over several groups; false: it is refused
};

struct Plan {
  std::vector<HostGpus> hosts;  // ascending
  int64_t gpus = 0;             // in `hosts`, those of the spares too
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t microusd_per_gpu_hour = 0;
  int64_t price_microusd = 0;     // of the whole window
  std::string explanation;        // why there, a sentence
  std::vector<HostIndex> spares;  // of `hosts`, ascending: held back
  std::vector<int32_t> groups;    // hosts of each placement group, in the order of `hosts`
};

Claim claim_of(const Plan& plan, std::string id);

enum class Reason {
  kInvalid,        // the request makes no sense
  kSeriesUnknown,  // no such series in the catalogue, or none of it here
  kNotEnoughGpus,  // more than exist in one site (or in the slice)
  kQuota,          // over the tenant's GPUs at once
  kBudget,         // over the tenant's money
  kPrice,          // dearer than the request allows
  kWindow,         // would end after end_by_ns
  kDrained,        // hosts out of use are what is missing
  kPower,          // rack power is what is missing
  kBusy,           // claims of others are what is missing
  kTopology,       // enough is free, but not on so few switches, in such blocks or in one placement group
  kPriority,       // kept for requests that go before
  kReservation,    // kept for somebody by a reservation
  kLimit,          // over what the QOS or the partition allows
  kBegin,          // not asked for before then
  kPreempting,     // those that make room are saving their work
};

/// "busy", "power", ... as used in JSON.
std::string_view reason_name(Reason reason);

enum class PowerLevel { kRack, kRow, kSite };

struct PowerRaise {
  PowerLevel level = PowerLevel::kRack;
  int32_t index = 0;  // of the rack, row or site
  int64_t raise_w = 0;
};

/// One way to start at the wanted time. Only the fields of what it changes are set; each was tried before it
/// was told.
struct Change {
  std::optional<int64_t> gpus;                       // ask for so many
  std::optional<int64_t> duration_ns;                // ask for so long
  std::optional<std::string> series;                 // ask for this series
  std::optional<int64_t> max_microusd_per_gpu_hour;  // allow so much
  std::vector<HostIndex> return_hosts;               // lift the drain of these
  std::optional<int32_t> max_switches;               // allow so many leaf switches
  std::optional<int32_t> segment;                    // ask for blocks of so many hosts; 0: for none
  bool split_groups = false;                         // allow more than one placement group
  std::vector<PowerRaise> raise_power;               // raise the budgets of these racks, rows or sites
  std::vector<std::string> release_claims;           // end these early
  std::optional<int64_t> raise_quota_gpus;           // quota to at least this
  std::optional<int64_t> raise_budget_microusd;      // budget to at least this
  int64_t size_ppm = 0;  // how much it changes, in millionths of what was asked for
  std::string text;      // "ask for 2 GPUs"
};

struct Refusal {
  Reason reason = Reason::kInvalid;
  std::string text;             // what was asked, what is there, and what is in the way
  std::optional<Plan> later;    // the plan with the earliest start, when there is one as things stand
  std::vector<Change> changes;  // smallest first; may be empty

  /// For an answer over REST: kInvalidArgument, kUnsatisfiable (never on this fleet), kResourceExhausted
  /// (quota, budget), kFailedPrecondition (not now). The message is the text, the earliest start and the
  /// smallest change.
  Error error() const;
};

/// A plan that starts at max(now_ns, request.start_ns), or a refusal. Place: the cheapest found in the
/// objective of docs/design/0005-placement.md (objective.h). Cost: see place() in place.h.
tl::expected<Plan, Refusal> decide(const Snapshot& snapshot, const Request& request, const Policy& policy,
                                   int64_t now_ns);

/// FIFO with conservative backfill: each request in order gets its earliest start beside the plans of all
/// before it, so that nobody delays anybody who asked earlier. A refusal's `later` is reserved for it.
/// Returns: one entry a request. Cost: one decide a request. Quota and usage of `policy` are applied to each
/// request alone.
std::vector<tl::expected<Plan, Refusal>> plan_queue(const Snapshot& snapshot,
                                                    std::span<const Request> requests, const Policy& policy,
                                                    int64_t now_ns);

}  // namespace th::reserve
