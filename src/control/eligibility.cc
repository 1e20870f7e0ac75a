#include "control/eligibility.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/units.h"
#include "control/tenants.h"
#include "request/job_options.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::JobState;
using request::Dependency;
using request::DependencyKind;

enum class Verdict { kMet, kWaits, kNever };

/// Of one job that the dependency names.
Verdict verdict_on(const Dependency& dependency, const Job& other, int64_t now_ns) {
  const bool ok = other.state == JobState::kSucceeded;
  switch (dependency.kind) {
    case DependencyKind::kAfter: {
      if (other.started_ns == 0) return other.ended() ? Verdict::kMet : Verdict::kWaits;
      return now_ns >= other.started_ns + dependency.delay_ns ? Verdict::kMet : Verdict::kWaits;
    }
    case DependencyKind::kAfterOk:
      return !other.ended() ? Verdict::kWaits : ok ? Verdict::kMet : Verdict::kNever;
    case DependencyKind::kAfterNotOk:
      return !other.ended() ? Verdict::kWaits : ok ? Verdict::kNever : Verdict::kMet;
    default:
      return other.ended() ? Verdict::kMet : Verdict::kWaits;
  }
}

struct Finding {
  Verdict verdict = Verdict::kMet;
  std::string text;
};

std::string text_of(const Dependency& dependency, const Job& other, Verdict verdict) {
  const std::string& id = other.submitted.job;
  if (verdict == Verdict::kNever) {
    return fmt::format("{} {}, and it wants {}: that is never met", id, ledger::name_of(other.state),
                       request::name_of(dependency.kind));
  }
  if (dependency.kind != DependencyKind::kAfter) return fmt::format("it waits for {} to end", id);
  if (other.started_ns == 0) return fmt::format("it waits for {} to start", id);
  return fmt::format("it waits until {} after the start of {}", format_duration(dependency.delay_ns), id);
}

/// Of an array every task counts; afternotok is met when all have ended and one did not end well.
Finding finding_on(const Dependency& dependency, const std::vector<const Job*>& others, int64_t now_ns) {
  Finding out;
  bool one_met = false;
  for (const Job* other : others) {
    const Verdict verdict = verdict_on(dependency, *other, now_ns);
    one_met = one_met || verdict == Verdict::kMet;
    const bool worse = verdict == Verdict::kNever
                           ? out.verdict != Verdict::kNever
                           : verdict == Verdict::kWaits && out.verdict == Verdict::kMet;
    if (worse) out = {verdict, text_of(dependency, *other, verdict)};
  }
  if (dependency.kind != DependencyKind::kAfterNotOk || others.size() < 2) return out;
  const auto waits = std::ranges::find_if(others, [](const Job* other) { return !other->ended(); });
  if (waits != others.end()) return {Verdict::kWaits, text_of(dependency, **waits, Verdict::kWaits)};
  return one_met ? Finding{} : out;
}

/// Jobs of the same name that were submitted before.
Finding singleton(const ledger::State& state, const Job& job, const std::string& array) {
  for (const auto& [id, other] : state.jobs) {
    if (id == job.submitted.job || id == array) break;
    if (account_of(other.owner) != account_of(job.owner)) continue;
    if (!other.ended() && other.submitted.name == job.submitted.name && other.submitted.kind == "batch") {
      return {Verdict::kWaits,
              fmt::format("it waits for {} to end, which has the same name '{}'", id, job.submitted.name)};
    }
  }
  return {};
}

std::optional<Waiting> check_dependencies(const ledger::State& state, const Job& job,
                                          const request::JobSpec& spec, const SpecOf& spec_of,
                                          int64_t now_ns) {
  if (spec.dependency.empty()) return std::nullopt;
  const auto dependencies = request::parse_dependencies(spec.dependency);
  if (!dependencies) return std::nullopt;  // the spec was validated
  Finding worst, waits;
  size_t met = 0, never = 0;
  for (const Dependency& dependency : dependencies->items) {
    const Finding finding = dependency.kind == DependencyKind::kSingleton
                                ? singleton(state, job, spec.array_job)
                                : finding_on(dependency, jobs_meant(state, dependency.job, spec_of), now_ns);
    if (finding.verdict == Verdict::kMet) ++met;
    if (finding.verdict == Verdict::kNever && never++ == 0) worst = finding;
    if (finding.verdict == Verdict::kWaits && waits.text.empty()) waits = finding;
  }
  const size_t all = dependencies->items.size();
  if (dependencies->any ? met > 0 : met == all) return std::nullopt;
  const bool hopeless = dependencies->any ? never == all : never > 0;
  if (hopeless) {
    return Waiting{"dependency_never_satisfied", worst.text, "cancel it, or submit it again without that", 0};
  }
  return Waiting{"dependency", waits.text, "", 0};
}

std::optional<Waiting> check_array(const ledger::State& state, const Job& job, const request::JobSpec& spec,
                                   const SpecOf& spec_of) {
  if (spec.array_job.empty() || spec.array_limit == 0) return std::nullopt;
  int64_t running = 0, before = 0;
  bool passed = false;
  for (const Job* other : jobs_meant(state, spec.array_job, spec_of)) {
    passed = passed || other == &job;
    if (other == &job || other->ended()) continue;
    // A task that has a slice of its own, or had an attempt, is on its way.
    const bool waits = other->attempt == 0 && (other->slice.empty() || !other->submitted.slice.empty());
    if (!waits) ++running;
    if (waits && !passed) ++before;
  }
  if (running + before < spec.array_limit) return std::nullopt;
  return Waiting{
      "array_limit",
      fmt::format("{} of its array's tasks run, {} go before it, and the array allows {} at the same time",
                  running, before, spec.array_limit),
      "", 0};
}

}  // namespace

Waiting waiting_of(const reserve::Refusal& refusal) {
  Waiting waiting;
  waiting.code = reserve::reason_name(refusal.reason);
  waiting.text = refusal.text;
  if (refusal.later) waiting.estimated_start_ns = refusal.later->start_ns;
  if (!refusal.changes.empty()) waiting.smallest_change = refusal.changes[0].text;
  return waiting;
}

std::vector<const Job*> jobs_meant(const ledger::State& state, const std::string& job,
                                   const SpecOf& spec_of) {
  const auto parts = split(job, '_');
  const std::string first = parts.size() == 2 ? "job-" + parts[0] : job;
  std::vector<const Job*> out;
  auto at = state.jobs.find(first);
  if (at == state.jobs.end()) return out;
  const request::JobSpec& spec = spec_of(at->second);
  const bool is_array = spec.array_job == first;
  if (!is_array) {
    if (parts.size() < 2) out.push_back(&at->second);
    return out;
  }
  for (; at != state.jobs.end(); ++at) {  // the tasks of an array stand side by side
    const request::JobSpec& other = spec_of(at->second);
    if (other.array_job != first) break;
    if (parts.size() < 2 || parts[1] == std::to_string(other.array_index)) out.push_back(&at->second);
  }
  return out;
}

std::optional<Waiting> not_eligible(const ledger::State& state, const Job& job, const SpecOf& spec_of,
                                    int64_t now_ns) {
  if (job.attempt > 0) return std::nullopt;  // it has begun
  const request::JobSpec& spec = spec_of(job);
  if (auto waiting = check_dependencies(state, job, spec, spec_of, now_ns)) return waiting;
  if (spec.begin_ns > now_ns) {
    return Waiting{"begin_time", "it begins at " + format_time(spec.begin_ns) + " as it was asked to", "",
                   spec.begin_ns};
  }
  return check_array(state, job, spec, spec_of);
}

}  // namespace th::control
