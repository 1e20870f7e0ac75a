// Jobs that can go on elsewhere are moved where that lets one that waits start, and pays (reserve/defrag.h).

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "control/jobs.h"
#include "control/placing.h"
#include "reserve/defrag.h"

namespace th::control {
namespace {

using ledger::Job;

constexpr int64_t kPauseNs = 10 * kSecond;  // between two looks at what could be moved

/// Whether room is all that it waits for.
bool waits_for_room(const reserve::Pending& pending, const reserve::Decision& decision, int64_t now_ns) {
  const reserve::Reason reason = decision.refusal.reason;
  const bool room = reason == reserve::Reason::kBusy || reason == reserve::Reason::kTopology ||
                    reason == reserve::Reason::kPower;
  return !decision.start && room && decision.preempts.empty() && decision.refusal.later &&
         decision.refusal.later->start_ns > now_ns && pending.reservation.empty() &&
         pending.request.start_ns <= now_ns;
}

double gpu_hours(int64_t gpu_ns) { return static_cast<double>(gpu_ns) / kHour; }

}  // namespace

/// The job that the claim is of, where it has shown that it saves checkpoints and may run on any hosts.
const Job* Jobs::movable(const reserve::Running& running) {
  const auto slice = core_.state().slices.find(running.claim.id);
  const bool own = slice != core_.state().slices.end();
  if (own && (!slice->second.terms.implicit || !slice->second.owner.reservation.empty())) return nullptr;
  const auto job = core_.state().jobs.find(own ? slice->second.terms.name : running.claim.id);
  if (job == core_.state().jobs.end() || running.saved_ns == 0 || !running.preemptible || running.ends_ns)
    return nullptr;
  const request::JobSpec& spec = spec_of(job->second);
  const reserve::Qos* qos = core_.policy().find_qos(running.who.qos);
  const bool anywhere = !picks_hosts(spec) && spec.segment == 0 && (own || gpus_per_host(spec) == 0);
  const bool ran_long_enough = !qos || core_.now_ns() - running.started_ns >= qos->min_run_ns;
  return anywhere && ran_long_enough && spec.requeue && !spec.batch ? &job->second : nullptr;
}

void Jobs::defragment(reserve::Snapshot snapshot, const reserve::QueuePlan& plan,
                      std::span<const reserve::Pending> pending, std::span<const reserve::Running> running) {
  const reserve::QueuePolicy& policy = core_.policy();
  const int64_t now_ns = core_.now_ns();
  const auto head = std::ranges::find_if(plan.decisions, [&](const reserve::Decision& decision) {
    return waits_for_room(pending[decision.index], decision, now_ns);
  });
  const bool making_room = std::ranges::any_of(
      running, [](const reserve::Running& each) { return each.ends_ns && !each.makes_room_for.empty(); });
  if (policy.max_moves == 0 || head == plan.decisions.end() || making_room || !plan.preemptions.empty() ||
      core_.monotonic_ns() < next_defrag_ns_)
    return;
  next_defrag_ns_ = core_.monotonic_ns() + kPauseNs;
  for (auto ahead = plan.decisions.begin(); ahead != head; ++ahead) {  // what they were promised stays theirs
    const std::optional<reserve::Plan>& promised = ahead->start ? ahead->start : ahead->refusal.later;
    if (!promised) continue;
    if (auto next = snapshot.with_claim(reserve::claim_of(*promised, pending[ahead->index].request.name)))
      snapshot = *std::move(next);
  }
  std::vector<reserve::Movable> movables;
  for (const reserve::Running& each : running) {
    if (!movable(each)) continue;
    movables.push_back({each.claim, now_ns - std::max(each.started_ns, each.saved_ns) + policy.move_cost_ns});
  }
  reserve::DefragOptions options;
  options.max_moves = static_cast<size_t>(policy.max_moves);
  options.wait_ns = head->refusal.later->start_ns - now_ns;
  const reserve::Request& gang = pending[head->index].request;
  const auto moves =
      reserve::plan_defrag(snapshot, gang, reserve::terms_in(snapshot, policy), now_ns, movables, options);
  if (!moves) return;
  for (const reserve::Move& move : moves->moves) {
    const auto each =
        std::ranges::find(running, move.claim, [](const reserve::Running& of) { return of.claim.id; });
    const Job& job = *movable(*each);
    preempt_job(
        job, gang.name,
        fmt::format("to go on elsewhere, so that {} can start: {:.2f} GPU hours are won and {:.2f} lost",
                    gang.name, gpu_hours(moves->gain_gpu_ns), gpu_hours(moves->cost_gpu_ns)),
        now_ns + grace_ms(job) * kMillisecond);
  }
}

}  // namespace th::control
