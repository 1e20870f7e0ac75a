#include "ledger/state.h"

#include <algorithm>

#include "base/units.h"

namespace th::ledger {

GpuNs Slice::gpu_ns_at(int64_t now_ns) const {
  const int64_t until_ns = std::min(now_ns, terms.end_ns);
  return gpu_ns + static_cast<GpuNs>(metered_gpus) * std::max<int64_t>(0, until_ns - metered_until_ns);
}

int64_t Slice::cost_microusd_at(int64_t now_ns) const {
  return cost_of(gpu_ns_at(now_ns), terms.microusd_per_gpu_hour);
}

const Slice* State::find_slice(std::string_view name_or_id) const {
  if (auto found = slices.find(name_or_id); found != slices.end()) return &found->second;
  const Slice* last = nullptr;
  for (const auto& [id, slice] : slices) {
    if (slice.terms.name != name_or_id) continue;
    if (slice.live()) return &slice;
    last = &slice;
  }
  return last;
}

const Job* State::find_job(std::string_view id_or_name) const {
  if (auto found = jobs.find(id_or_name); found != jobs.end()) return &found->second;
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
    if (job->second.submitted.name == id_or_name) return &job->second;
  }
  return nullptr;
}

int64_t State::cost_microusd(const Job& job, int64_t now_ns) const {
  const auto slice = slices.find(job.slice);
  if (!job.attempt_open || slice == slices.end()) return job.cost_microusd;
  const GpuNs gpu_ns = static_cast<GpuNs>(job.gpu_milli) * (now_ns - job.attempt_started_ns) / 1000;
  return job.cost_microusd + cost_of(gpu_ns, slice->second.terms.microusd_per_gpu_hour);
}

std::string_view name_of(SliceState state) {
  constexpr std::string_view kNames[] = {"held",     "starting", "ready",  "releasing",
                                         "released", "failed",   "expired"};
  return kNames[static_cast<int>(state)];
}
std::string_view name_of(VmState state) {
  constexpr std::string_view kNames[] = {"requested", "starting", "ready", "down", "deleted", "kept"};
  return kNames[static_cast<int>(state)];
}
std::string_view name_of(JobState state) {
  constexpr std::string_view kNames[] = {"pending",   "starting", "running",  "restarting",
                                         "succeeded", "failed",   "cancelled"};
  return kNames[static_cast<int>(state)];
}

}  // namespace th::ledger
