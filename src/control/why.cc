// Why a thing is as it is: its dominant reason, when it will start, what would change it, and how it came
// about.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "control/views.h"
#include "control/visible.h"

namespace th::control {
namespace {

struct Why {
  std::string subject, state, code, text, smallest_change;
  int64_t estimated_start_ns = 0, cost_microusd = 0;
};

Json to_json(const Why& why, const std::vector<Moment>& moments) {
  Json timeline = Json::array();
  for (const Moment& moment : moments) {
    timeline.push_back({{"time_ns", moment.time_ns}, {"what", moment.what}, {"why", moment.why}});
  }
  return {{"subject", why.subject},
          {"state", why.state},
          {"reason", {{"code", why.code}, {"text", why.text}}},
          {"estimated_start_ns", why.estimated_start_ns ? Json(why.estimated_start_ns) : Json(nullptr)},
          {"smallest_change", why.smallest_change.empty() ? Json(nullptr) : Json(why.smallest_change)},
          {"timeline", std::move(timeline)},
          {"cost_microusd", why.cost_microusd}};
}

Why why_job(Controller& c, const ledger::Job& job) {
  const std::string& id = job.submitted.job;
  Why why{id,
          std::string(ledger::name_of(job.state)),
          "",
          job.reason,
          "",
          job.started_ns,
          c.core.state().cost_microusd(job, c.core.now_ns())};
  if (job.ended()) {
    why.code = why.state;
    if (job.state == ledger::JobState::kSucceeded) why.text = "every rank exited with 0";
    if (job.lost_steps > 0)
      why.text += fmt::format("; {} steps were lost to faults on the way", job.lost_steps);
    return why;
  }
  if (job.cancelling()) {
    why.code = "stopping";
    return why;
  }
  if (c.jobs.waiting(id)) c.jobs.explain(id);
  if (const Waiting* waiting = c.jobs.waiting(id)) {
    why.code = waiting->code, why.text = waiting->text;
    why.estimated_start_ns = waiting->estimated_start_ns, why.smallest_change = waiting->smallest_change;
    if (!job.reason.empty()) why.text += "; before that: " + job.reason;
    return why;
  }
  if (job.state == ledger::JobState::kRunning) {
    why.code = "running";
    why.text = fmt::format("attempt {} runs", job.attempt);
    if (!job.reason.empty()) why.text += "; the one before ended because " + job.reason;
    return why;
  }
  if (job.attempt == 0) {
    const auto slice = c.core.state().slices.find(job.slice);
    why.code = "slice";
    why.text = slice == c.core.state().slices.end()
                   ? "it waits for a slice of its own"
                   : fmt::format("slice '{}' is {}", slice->second.terms.name, slice_state(c, slice->second));
    return why;
  }
  why.code = job.attempt_succeeded ? "registering" : job.attempt_open ? "starting" : "stopping";
  if (job.attempt_open && job.reason.empty()) why.text = "its ranks are being started";
  return why;
}

Why why_slice(const Controller& c, const ledger::Slice& slice) {
  Why why{slice.terms.name,
          slice_state(c, slice),
          "",
          slice.reason,
          "",
          slice.terms.start_ns,
          slice.cost_microusd_at(c.core.now_ns())};
  why.code = why.state;
  if (why.state == "held") {
    why.text = "it is held until " + format_time(slice.terms.hold_expires_ns) + " and waits to be committed";
    why.smallest_change = "commit it";
  } else if (why.state == "starting") {
    why.text = c.core.now_ns() < slice.terms.start_ns
                   ? "its window starts at " + format_time(slice.terms.start_ns)
                   : "its nodes are starting";
    for (const std::string& vm : slice.vms) {
      const ledger::Vm& of = c.core.state().vms.at(vm);
      if (of.state != ledger::VmState::kReady)
        why.text += fmt::format("; node {} is {}", vm, ledger::name_of(of.state));
    }
  } else if (why.state == "ready") {
    why.text = slice.terms.placement;
  } else if (why.state == "degraded") {
    why.text = "a node is lost and its replacement is not ready";
    for (const std::string& vm : slice.vms) {
      const ledger::Vm& of = c.core.state().vms.at(vm);
      if (!of.reason.empty()) why.text += fmt::format("; node {} on host {}: {}", vm, of.host, of.reason);
    }
    const std::string note = c.slices.repair_note(slice.terms.slice);
    if (!note.empty()) why.text += "; " + note;
  }
  return why;
}

}  // namespace

Result<Json> why_json(Controller& c, const std::string& subject) {
  const ledger::State& state = c.core.state();
  const ledger::Deployment* deployment = find_deployment(c.core, subject);
  const bool job_id = state.jobs.count(subject) > 0;
  if (!job_id) {
    if (const ledger::Slice* slice = find_slice(c.core, subject)) {
      return to_json(why_slice(c, *slice), c.timeline.of(slice->terms.slice));
    }
    if (deployment) {
      const ledger::Deployment& of = *deployment;
      Why why = why_job(c, state.jobs.at(of.created.job));
      std::vector<Moment> moments = c.timeline.of(of.created.job);
      for (const Moment& moment : c.timeline.of(subject)) {
        if (moment.time_ns >= of.created_ns) moments.push_back(moment);  // earlier ones are of another one
      }
      std::sort(moments.begin(), moments.end(),
                [](const Moment& a, const Moment& b) { return a.seq < b.seq; });
      moments.erase(std::unique(moments.begin(), moments.end(),
                                [](const Moment& a, const Moment& b) { return a.seq == b.seq; }),
                    moments.end());
      why.subject = subject, why.state = of.state;
      if (of.state == "ready") why.code = "ready", why.text = "its replica answers at " + of.url;
      return to_json(why, moments);
    }
  }
  if (const ledger::Job* job = find_job(c.core, subject)) {
    return to_json(why_job(c, *job), c.timeline.of(job->submitted.job));
  }
  return fail(
      Code::kNotFound,
      "'" + subject + "' is no job, slice or deployment; th jobs and th slice list show what there is");
}

}  // namespace th::control
