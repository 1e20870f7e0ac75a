#pragma once
// Whether a queued job may be placed at all yet: what it waits for that is not room. Pure reading.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ledger/state.h"
#include "request/job_spec.h"
#include "reserve/reserve.h"

namespace th::control {

/// Why a job does not run yet, as the last look at the queue found.
struct Waiting {
  std::string code, text, smallest_change;
  int64_t estimated_start_ns = 0;  // 0: not known
  int64_t priority = 0;            // points (docs/queue.md)
};

Waiting waiting_of(const reserve::Refusal& refusal);

/// What a job that is not submitted could expect.
struct Estimate {
  std::optional<reserve::Plan> plan;  // none: nobody can say when
  std::string partition, series;      // partition: empty, it would get a slice of its own
  int64_t price_microusd = 0;
  Waiting waiting;  // why not now; no code: it would start now
};

using SpecOf = std::function<const request::JobSpec&(const ledger::Job&)>;

/// The jobs that a dependency's "job-12" or "12_3" means: a job, or every task of the array of that number.
/// Empty: there is none.
std::vector<const ledger::Job*> jobs_meant(const ledger::State& state, const std::string& job,
                                           const SpecOf& spec_of);

/// Its begin, its dependencies, the limit of its array; nullopt: it may be placed. Codes: begin_time,
/// dependency, dependency_never_satisfied, array_limit. Cost: O(jobs) for singleton and for arrays, else
/// O(log n).
std::optional<Waiting> not_eligible(const ledger::State& state, const ledger::Job& job, const SpecOf& spec_of,
                                    int64_t now_ns);

}  // namespace th::control
