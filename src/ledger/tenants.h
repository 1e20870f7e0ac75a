#pragma once
// The part of the state that says whose things are and what accounts have used (state.h).

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "ledger/tenant_events.h"

namespace th::ledger {

__extension__ using GpuNs = __int128;  // 64 bits end at 2.5 million GPU-hours

/// Empty account and qos: from before there were any.
struct Owner {
  std::string account, user, qos, partition, reservation;
  bool spot = false;
};

/// GPU time that decays: a GPU-second counts half after each half-life. Leases count for the account of the
/// slice; ranks on somebody else's slice for the account of the job as well.
struct AccountUsage {
  double gpu_s = 0;  // as of at_ns
  int64_t at_ns = 0;
  int64_t gpu_milli = 0;  // metered since then

  double at(int64_t now_ns, int64_t half_life_ns) const;
  void run(int64_t more_gpu_milli, int64_t now_ns, int64_t half_life_ns);
};

inline constexpr int64_t kDefaultHalfLifeNs = int64_t{7} * 24 * 3600 * 1'000'000'000;

/// What the GPU time costs, rounded half up.
int64_t cost_of(GpuNs gpu_ns, int64_t microusd_per_gpu_hour);

/// What an account used in one hour.
struct HourUsage {
  GpuNs gpu_ns = 0, priced_ns = 0;  // priced: times the micro-dollars that a GPU-hour costs
  int64_t requests = 0, prompt_tokens = 0, completion_tokens = 0;

  int64_t microusd() const { return cost_of(priced_ns, 1); }
};
/// By the start of the hour (since 1970, UTC) and the account ("": of keys of the platform, or that are
/// gone).
using UsageHours = std::map<std::pair<int64_t, std::string>, HourUsage>;
inline constexpr int64_t kUsageHoursKeptNs = int64_t{92} * 24 * 3600 * 1'000'000'000;

struct Slice;
/// Adds what the slice ran since it was metered last. Cost: O(hours since then).
void add_run(UsageHours& hours, const Slice& slice, int64_t until_ns);

}  // namespace th::ledger
