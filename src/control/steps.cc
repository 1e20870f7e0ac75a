// Steps: launches inside of a running batch job, as srun makes them. Each is a job of kind "step" on the
// places that the batch job holds; it ends with it.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/units.h"
#include "control/batch.h"
#include "control/jobs.h"
#include "request/job_options.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::RankPlace;

/// What is left of the places when these GPUs are in use.
std::vector<RankPlace> without(std::vector<RankPlace> places, const std::vector<ledger::Rank>& used) {
  for (const ledger::Rank& rank : used) {
    for (RankPlace& place : places) {
      if (place.vm != rank.place.vm) continue;
      std::erase_if(place.gpus, [&](int64_t gpu) { return std::ranges::count(rank.place.gpus, gpu) > 0; });
    }
  }
  std::erase_if(places, [](const RankPlace& place) { return place.gpus.empty(); });
  return places;
}

int64_t count_gpus(const std::vector<RankPlace>& places) {
  int64_t out = 0;
  for (const RankPlace& place : places) out += static_cast<int64_t>(place.gpus.size());
  return out;
}

/// The first `gpus` of them, on at most `nodes` nodes (0: any).
std::vector<RankPlace> first_of(std::vector<RankPlace> places, int64_t gpus, int64_t nodes) {
  if (nodes > 0 && nodes < static_cast<int64_t>(places.size())) places.resize(static_cast<size_t>(nodes));
  for (RankPlace& place : places) {
    place.gpus.resize(std::min(place.gpus.size(), static_cast<size_t>(gpus)));
    gpus -= static_cast<int64_t>(place.gpus.size());
  }
  std::erase_if(places, [](const RankPlace& place) { return place.gpus.empty(); });
  return places;
}

}  // namespace

Result<std::string> Jobs::submit_step(const std::string& id, request::JobSpec spec) {
  const auto found = core_.state().jobs.find(id);
  if (found == core_.state().jobs.end()) return fail(Code::kNotFound, "job '" + id + "' does not exist");
  const Job& job = found->second;
  if (!job.attempt_open || job.cancelling() || !spec_of(job).batch) {
    return fail(Code::kFailedPrecondition,
                fmt::format("{} is {} {}: steps start inside of a batch job that runs", id,
                            job.submitted.kind, ledger::name_of(job.state)));
  }
  const std::vector<RankPlace> places = places_of(job);
  if (spec.gpus > count_gpus(places) || spec.min_nodes > static_cast<int64_t>(places.size())) {
    return fail(Code::kUnsatisfiable,
                fmt::format("the step asks for {} GPUs on {} nodes; {} has {} on {}", spec.gpus,
                            std::max<int64_t>(1, spec.min_nodes), id, count_gpus(places), places.size()));
  }
  const auto usable = first_of(places, spec.gpus, spec.max_nodes);
  spec.gpus = count_gpus(usable);
  TH_TRY(auto ranks, lay_out(usable, std::max<int64_t>(1, spec.ntasks), spec.ntasks_per_node));
  spec.ntasks = static_cast<int64_t>(ranks.size());
  spec.step_of = id, spec.retries = 0, spec.slice.reset();
  for (const auto& [other, step] : core_.state().jobs) {
    if (step.submitted.kind == "step" && spec_of(step).step_of == id) ++spec.array_index;
  }
  ledger::JobSubmitted submitted;
  submitted.job = fmt::format("job-{}", core_.state().next_job);
  submitted.name = spec.name, submitted.kind = "step", submitted.slice = job.slice;
  submitted.gpus = 0;  // the batch job pays for them
  submitted.spec = spec_text(spec);
  const std::string out = submitted.job;
  core_.stage(std::move(submitted));
  return out;
}

bool Jobs::has_live_steps(const std::string& id) {
  return std::ranges::any_of(core_.active_jobs(), [&](const auto& active) {
    const Job& step = *active.second;
    return step.submitted.kind == "step" && spec_of(step).step_of == id;
  });
}

/// In the order in which they came; one that does not fit holds back those behind it.
void Jobs::start_steps() {
  std::set<std::string> held;
  const auto active = core_.active_jobs();
  for (const auto& [id, of] : active) {
    const Job& step = *of;
    if (step.submitted.kind != "step" || step.attempt > 0 || step.cancelling()) continue;
    const request::JobSpec& spec = spec_of(step);
    const Job& job = core_.state().jobs.at(spec.step_of);
    if (!job.attempt_open || job.cancelling()) continue;  // step_of_job ends it
    std::vector<RankPlace> free = places_of(job);
    for (const auto& [other, beside_it] : active) {
      const Job& running = *beside_it;
      const bool beside = running.submitted.kind == "step" && spec_of(running).step_of == spec.step_of;
      if (beside && (running.attempt_open || gangs_.count(other)))
        free = without(std::move(free), running.ranks);
    }
    free = first_of(std::move(free), spec.gpus, spec.max_nodes);
    auto ranks = lay_out(free, spec.ntasks, spec.ntasks_per_node);
    const bool fits = count_gpus(free) >= spec.gpus && static_cast<int64_t>(free.size()) >= spec.min_nodes &&
                      ranks && static_cast<int64_t>(ranks->size()) == spec.ntasks;
    if (!fits || held.count(spec.step_of)) {
      held.insert(spec.step_of);
      note(id, {"busy", fmt::format("other steps of {} use its GPUs", spec.step_of), "", 0});
      continue;
    }
    start_ranks(step, job.slice, *std::move(ranks), 0);
  }
}

/// Ends with its batch script.
void Jobs::step_of_job(const Job& step) {
  const Job& job = core_.state().jobs.at(spec_of(step).step_of);
  if (step.cancelling() || (job.attempt_open && !job.cancelling())) return;
  cancel(step.submitted.job, "cancelled", fmt::format("its job {} has ended", job.submitted.job));
}

/// No rank of the script tells of a lost node that is there for its steps.
void Jobs::end_without_nodes(const Job& job) {
  if (!job.attempt_open || job.cancelling()) return;
  for (const RankPlace& place : job.reserved) {
    const ledger::Vm& vm = core_.state().vms.at(place.vm);
    if (vm.state != ledger::VmState::kDown && vm.state != ledger::VmState::kDeleted) continue;
    ledger::AttemptEnded ended;
    ended.job = job.submitted.job, ended.attempt = job.attempt;
    ended.reason = fmt::format("node {} on host {} is lost: {}", vm.id, vm.host, vm.reason);
    core_.stage(std::move(ended));
    if (!spec_of(job).requeue) core_.stage(ledger::JobCause{job.submitted.job, "node_fail"});
    return core_.launcher().stop(job.submitted.job);
  }
}

/// As sbatch's --signal: to the batch script with B:, else to its steps; to every rank of what is no script.
void Jobs::signal_before_end(const Job& job) {
  const request::JobSpec& spec = spec_of(job);
  if (spec.signal.empty() || !job.attempt_open || !spec.duration_ns) return;
  const auto signal = request::parse_end_signal(spec.signal);
  if (!signal || core_.now_ns() < job.started_ns + *spec.duration_ns - signal->before_ns) return;
  if (!spec.batch || signal->batch_only) {
    return core_.launcher().signal(job.submitted.job, signal->number, signal->batch_only);
  }
  for (const auto& [id, active] : core_.active_jobs()) {
    const Job& step = *active;
    const bool its = step.submitted.kind == "step" && spec_of(step).step_of == job.submitted.job;
    if (its) core_.launcher().signal(id, signal->number, false);
  }
}

}  // namespace th::control
