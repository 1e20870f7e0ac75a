#include "ledger/apply_tenants.h"

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "reserve/policy.h"

namespace th::ledger {
namespace {

Status refuse(std::string what) { return fail(Code::kDataLoss, std::move(what)); }

void forget_hours(State& state, int64_t now_ns) {
  state.hours.erase(state.hours.begin(), state.hours.lower_bound({now_ns - kUsageHoursKeptNs - kHour, ""}));
}

}  // namespace

/// The integral of 2^(−age/H) over what ran since at_ns, beside what was there.
double AccountUsage::at(int64_t now_ns, int64_t half_life_ns) const {
  const double span_s = static_cast<double>(std::max<int64_t>(0, now_ns - at_ns)) / kSecond;
  const double half_life_s = static_cast<double>(half_life_ns) / kSecond;
  const double left = std::exp2(-span_s / half_life_s);
  return gpu_s * left + static_cast<double>(gpu_milli) / 1000 * half_life_s / std::log(2.0) * (1 - left);
}

void AccountUsage::run(int64_t more_gpu_milli, int64_t now_ns, int64_t half_life_ns) {
  gpu_s = at(now_ns, half_life_ns);
  at_ns = now_ns;
  gpu_milli += more_gpu_milli;
}

int64_t cost_of(GpuNs gpu_ns, int64_t microusd_per_gpu_hour) {
  return static_cast<int64_t>((gpu_ns * microusd_per_gpu_hour + kHour / 2) / kHour);
}

void add_run(UsageHours& hours, const Slice& slice, int64_t until_ns) {
  const std::string account = slice.owner.account.empty() ? reserve::kDefaultAccount : slice.owner.account;
  until_ns = std::min(until_ns, slice.terms.end_ns);
  int64_t at_ns = std::max(slice.metered_until_ns, until_ns - kUsageHoursKeptNs);
  while (slice.metered_gpus > 0 && at_ns < until_ns) {
    const int64_t hour_ns = at_ns - at_ns % kHour, next_ns = std::min(until_ns, hour_ns + kHour);
    const GpuNs gpu_ns = static_cast<GpuNs>(slice.metered_gpus) * (next_ns - at_ns);
    HourUsage& hour = hours[{hour_ns, account}];
    hour.gpu_ns += gpu_ns, hour.priced_ns += gpu_ns * slice.terms.microusd_per_gpu_hour;
    at_ns = next_ns;
  }
}

namespace detail {

void count_tokens(State& state, const UsageRecord& record, int64_t now_ns) {
  const auto key = state.keys.find(record.key_id);
  HourUsage& hour = state.hours[{now_ns - now_ns % kHour, key == state.keys.end() ? "" : key->second.tenant}];
  ++hour.requests;
  hour.prompt_tokens += record.prompt_tokens, hour.completion_tokens += record.completion_tokens;
  forget_hours(state, now_ns);
}

bool is_paid(const Slice& slice, const Vm& vm) {
  return std::ranges::any_of(slice.terms.hosts, [&](const Share& share) { return share.host == vm.host; });
}

void meter(State& state, Slice& slice, int64_t gpus, int64_t now_ns) {
  add_run(state.hours, slice, now_ns);
  forget_hours(state, now_ns);
  slice.gpu_ns = slice.gpu_ns_at(now_ns);
  slice.metered_until_ns = now_ns;
  state.accounts[slice.owner.account].run((gpus - slice.metered_gpus) * 1000, now_ns, state.half_life_ns);
  slice.metered_gpus = gpus;
}

void count_guest(State& state, const Job& job, int64_t gpu_milli, int64_t now_ns) {
  const auto slice = state.slices.find(job.slice);
  if (slice == state.slices.end() || slice->second.owner.account == job.owner.account) return;
  state.accounts[job.owner.account].run(gpu_milli, now_ns, state.half_life_ns);
}

Status apply(State& state, const PolicyLoaded& e, int64_t now_ns) {
  if (e.half_life_ns <= 0) return refuse("policy without a half-life");
  for (auto& [name, usage] : state.accounts) usage.run(0, now_ns, state.half_life_ns);
  state.half_life_ns = e.half_life_ns;
  state.policy_sha256 = e.sha256;
  return {};
}

Status apply(State& state, const SliceOwned& e, int64_t) {
  const auto slice = state.slices.find(e.slice);
  if (slice == state.slices.end()) return refuse("slice " + e.slice + " is unknown");
  if (slice->second.ready_ns != 0) return refuse("slice " + e.slice + " is metered already");
  slice->second.owner = {e.account, e.user, e.qos, "", e.reservation, e.spot};
  return {};
}

Status apply(State& state, const JobOwned& e, int64_t) {
  const auto job = state.jobs.find(e.job);
  if (job == state.jobs.end()) return refuse("job " + e.job + " is unknown");
  if (job->second.attempt != 0) return refuse("job " + e.job + " has started already");
  job->second.owner = {e.account, e.user, e.qos, e.partition, "", false};
  return {};
}

Status apply(State& state, const JobPreempted& e, int64_t) {
  const auto job = state.jobs.find(e.job);
  if (job == state.jobs.end()) return refuse("job " + e.job + " is unknown");
  if (job->second.ended()) return refuse("job " + e.job + " has ended");
  job->second.preempted_until_ns = e.deadline_ns;
  job->second.started_ns = 0;  // its time limit is of the run that follows
  job->second.preempted_by = e.by;
  ++job->second.preemptions;
  return {};
}

Status apply(State& state, const JobRequeued& e, int64_t) {
  const auto job = state.jobs.find(e.job);
  if (job == state.jobs.end()) return refuse("job " + e.job + " is unknown");
  if (job->second.ended() || job->second.attempt_open) return refuse("job " + e.job + " cannot be put back");
  job->second.slice.clear();
  job->second.state = JobState::kPending;
  job->second.reason = e.reason;
  job->second.preempted_until_ns = 0;
  return {};
}

Status apply(State& state, const SliceResizing& e, int64_t now_ns) {
  const auto slice = state.slices.find(e.slice);
  if (slice == state.slices.end() || slice->second.state != SliceState::kReady)
    return refuse("slice " + e.slice + " is not ready");
  if (slice->second.resize) return refuse("slice " + e.slice + " is being resized already");
  slice->second.resize = Resize{e, now_ns};
  return {};
}

Status apply(State& state, const SliceResized& e, int64_t now_ns) {
  const auto found = state.slices.find(e.slice);
  if (found == state.slices.end() || found->second.state != SliceState::kReady)
    return refuse("slice " + e.slice + " is not ready");
  Slice& slice = found->second;
  auto& hosts = slice.terms.hosts;
  std::erase_if(
      hosts, [&](const Share& share) { return std::ranges::find(e.remove, share.host) != e.remove.end(); });
  if (slice.resize) {
    const std::vector<Share>& add = slice.resize->asked.add;
    hosts.insert(hosts.end(), add.begin(), add.end());
  }
  slice.terms.gpus = e.gpus, slice.terms.price_microusd = e.price_microusd;
  slice.resize.reset();
  slice.reason.clear();
  int64_t gpus = 0;
  for (const std::string& id : slice.vms) {
    const Vm& vm = state.vms.at(id);
    if (vm.state == VmState::kReady && is_paid(slice, vm)) gpus += vm.gpus;
  }
  meter(state, slice, gpus, now_ns);
  return {};
}

Status apply(State& state, const SliceResizeFailed& e, int64_t) {
  const auto slice = state.slices.find(e.slice);
  if (slice == state.slices.end() || !slice->second.resize)
    return refuse("slice " + e.slice + " is not being resized");
  slice->second.resize.reset();
  slice->second.reason = e.reason;
  return {};
}

Status apply(State& state, const ReservationCreated& e, int64_t) {
  if (!state.reservations.emplace(e.reservation, e).second)
    return refuse("reservation " + e.reservation + " exists already");
  return {};
}

Status apply(State& state, const ReservationEnded& e, int64_t) {
  if (!state.reservations.erase(e.reservation)) return refuse("reservation " + e.reservation + " is unknown");
  return {};
}

Status apply(State& state, const SliceGrouped& e, int64_t) {
  const auto slice = state.slices.find(e.slice);
  if (slice == state.slices.end()) return refuse("slice " + e.slice + " is unknown");
  const std::vector<Share>& hosts = slice->second.terms.hosts;
  if (e.groups.size() != hosts.size()) return refuse("slice " + e.slice + " has another number of hosts");
  for (size_t i = 0; i < hosts.size(); ++i) slice->second.groups[hosts[i].host] = e.groups[i];
  return {};
}

Status apply(State& state, const PowerCapped& e, int64_t) {
  if (!state.power_caps.emplace(e.cap, e).second) return refuse("power cap " + e.cap + " exists already");
  return {};
}

Status apply(State& state, const PowerUncapped& e, int64_t) {
  if (!state.power_caps.erase(e.cap)) return refuse("power cap " + e.cap + " is unknown");
  return {};
}

}  // namespace detail
}  // namespace th::ledger
