// What a job that is not submitted could expect (sbatch --test-only).

#include <algorithm>

#include "base/units.h"
#include "control/jobs.h"
#include "control/placing.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::Slice;

}  // namespace

Result<Estimate> Jobs::estimate(const request::JobSpec& asked) {
  TH_RETURN_IF_ERROR(check_options(asked));
  const reserve::Partition* partition = partition_of(asked);
  TH_TRY(const ledger::Owner owner,
         core_.owner_for(asked.account, asked.qos, partition ? partition->name : ""));
  TH_TRY(const std::string slice_id, slice_for(asked));
  request::JobSpec spec = fitted(asked, slice_id.empty() ? nullptr : &core_.state().slices.at(slice_id));
  if (partition && !spec.duration_ns) spec.duration_ns = partition->default_time_ns;
  const int64_t now_ns = core_.now_ns();
  Estimate out;
  auto mine = [&](reserve::Request request) {
    request.start_ns = spec.begin_ns;
    return pending_of(spec, owner, now_ns, std::move(request));
  };
  std::vector<reserve::Pending> pending;
  reserve::QueuePlan queue;
  if (slice_id.empty()) {
    TH_TRY(out.series, choose_series(spec));
    pending.push_back(mine(
        own_request(core_.fleet(), spec.name, spec, out.series, spec.duration_ns.value_or(kDefaultBatchNs))));
    auto ever = reserve::decide(core_.snapshot(), pending[0].request, {}, now_ns);
    if (!ever && !ever.error().later) return fail(ever.error().error());
    queue = look_at_queue(pending, spec.name);
  } else {
    const Slice& slice = core_.state().slices.at(slice_id);
    out.partition = slice.terms.name, out.series = slice.terms.series;
    if (slice.state != ledger::SliceState::kReady) {
      out.waiting = {"slice", "slice '" + slice.terms.name + "' is not ready yet", "",
                     std::max(slice.terms.start_ns, now_ns)};
      return out;
    }
    pending.push_back(mine(request_in(slice, spec.name, spec)));
    for (const auto& [id, active] : core_.active_jobs()) {
      const Job& job = *active;
      const bool queued = job.slice == slice_id && !job.attempt_open && !job.cancelling() &&
                          !gangs_.count(id) && job.submitted.kind != "step";
      if (queued) pending.push_back(pending_job(job, request_in(slice, id, spec_of(job))));
    }
    for (reserve::Pending& each : pending) each.reservation.clear();
    queue = look_inside(slice, pending);
  }
  // Nothing is done of what the queue would do.
  const auto own = std::ranges::find(queue.decisions, size_t{0}, &reserve::Decision::index);
  TH_CHECK(own != queue.decisions.end());
  out.plan = own->start ? own->start : own->refusal.later;
  if (!own->start) out.waiting = waiting_of(own->refusal);
  if (out.plan && spec.begin_ns > now_ns && out.plan->start_ns <= spec.begin_ns) {
    out.waiting = {"begin_time", "it begins at " + format_time(spec.begin_ns) + " as it was asked to", "",
                   spec.begin_ns};
  }
  if (out.plan) {
    const auto series = fleet::find_series(out.series);
    const int64_t price = out.plan->microusd_per_gpu_hour != 0 ? out.plan->microusd_per_gpu_hour
                          : series
                              ? fleet::series_catalogue()[static_cast<size_t>(*series)].microusd_per_gpu_hour
                              : 0;
    out.price_microusd = cost_microusd(out.plan->gpus, out.plan->end_ns - out.plan->start_ns, price);
  }
  // Once it is submitted, its dependencies are looked at first.
  Job job;
  job.submitted.job = "job-0", job.submitted.name = spec.name, job.submitted.kind = "batch";
  const SpecOf specs_with_it = [&](const Job& other) -> const request::JobSpec& {
    return &other == &job ? spec : spec_of(other);
  };
  if (auto waits = not_eligible(core_.state(), job, specs_with_it, std::max(now_ns, spec.begin_ns))) {
    out.waiting = *std::move(waits), out.plan.reset();
  }
  return out;
}

}  // namespace th::control
