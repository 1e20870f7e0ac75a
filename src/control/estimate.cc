// What a job that is not submitted could expect (sbatch --test-only).

#include <algorithm>

#include "base/units.h"
#include "control/jobs.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::Slice;

Waiting waiting_of(const reserve::Refusal& refusal) {
  Waiting out;
  out.code = reserve::reason_name(refusal.reason), out.text = refusal.text;
  if (refusal.later) out.estimated_start_ns = refusal.later->start_ns;
  if (!refusal.changes.empty()) out.smallest_change = refusal.changes[0].text;
  return out;
}

}  // namespace

Result<Estimate> Jobs::estimate(const request::JobSpec& spec) {
  TH_RETURN_IF_ERROR(check_options(spec));
  TH_TRY(const std::string slice_id, slice_for(spec));
  const int64_t now_ns = core_.now_ns();
  Estimate out;
  tl::expected<reserve::Plan, reserve::Refusal> plan = tl::unexpected(reserve::Refusal{});
  if (slice_id.empty()) {
    TH_TRY(out.series, choose_series(spec));
    reserve::Request request =
        own_request(core_.fleet(), spec.name, spec, out.series, spec.duration_ns.value_or(kDefaultBatchNs));
    request.start_ns = spec.begin_ns;
    plan = reserve::decide(reservations(), request, {}, now_ns);
    if (!plan && !plan.error().later) return fail(plan.error().error());
  } else {
    const Slice& slice = core_.state().slices.at(slice_id);
    out.partition = slice.terms.name, out.series = slice.terms.series;
    if (slice.state != ledger::SliceState::kReady) {
      out.waiting = {"slice", "slice '" + slice.terms.name + "' is not ready yet", "",
                     std::max(slice.terms.start_ns, now_ns)};
      return out;
    }
    std::vector<reserve::Request> requests;
    for (const std::string& id : core_.active_jobs()) {
      const Job& job = core_.state().jobs.at(id);
      const bool queued = job.slice == slice_id && !job.attempt_open && !job.cancelling() &&
                          !gangs_.count(id) && job.submitted.kind != "step";
      if (queued) requests.push_back(request_in(slice, id, spec_of(job)));
    }
    requests.push_back(request_in(slice, spec.name, fitted(spec, &slice)));
    requests.back().start_ns = spec.begin_ns;
    reserve::Policy policy;
    policy.end_by_ns = slice.terms.end_ns;
    plan = reserve::plan_queue(inside_of(slice), requests, policy, now_ns).back();
  }
  if (plan) out.plan = *plan;
  if (!plan) out.waiting = waiting_of(plan.error()), out.plan = plan.error().later;
  if (plan && spec.begin_ns > now_ns) {
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
