#include "sim/queue/muri.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "sim/queue/muri_nodes.h"
#include "sim/queue/muri_order.h"

namespace th::sim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
enum Happened : uint64_t { kStart = 1, kPreempt = 2, kEnd = 3 };

class Simulation {
 public:
  Simulation(std::span<const MuriJob> jobs, const MuriRun& run)
      : run_(run), states_(jobs.size()), nodes_(run.nodes, run.gpus_per_node) {
    for (size_t i = 0; i < jobs.size(); ++i) {
      TH_CHECK(jobs[i].gpus <= run.nodes * run.gpus_per_node);
      states_[i].job = &jobs[i];
      states_[i].iterations = jobs[i].iterations;
    }
    order_ = make_muri_order(run, states_);
    outcome_.jct_s.resize(jobs.size());
  }

  MuriOutcome finish() {
    while (submitted_ < states_.size() || !in_system_.empty()) {
      const double submission_s = submitted_ < states_.size() ? states_[submitted_].job->submit_s : kNever;
      step(std::min({submission_s, next_end_s_, next_look_s_}));
    }
    std::vector<double> jct_s = outcome_.jct_s;
    outcome_.avg_jct_s = mean(jct_s);
    outcome_.p99_jct_s = quantile(jct_s, 0.99);
    outcome_.log_hash = log_.value();
    return std::move(outcome_);
  }

 private:
  void step(double now_s) {
    TH_CHECK(now_s < kNever);
    ++outcome_.events;
    // A look comes before ends and submissions only when it is strictly earlier.
    if (next_end_s_ <= now_s) end_jobs(now_s);
    while (submitted_ < states_.size() && states_[submitted_].job->submit_s <= now_s) submit(now_s);
    for (int32_t job : in_system_) bring_up_to(state(job), now_s);
    for (int32_t job : in_system_)
      if (state(job).running) order_->ran(job);
    if (run_.protocol == MuriProtocol::kPlaced) {
      choose_placed(now_s);
    } else {
      choose_cleared(now_s);
    }
    // Time goes on, even where rounding says that the moment is now.
    next_look_s_ = std::max(order_->decided(now_s), std::nextafter(now_s, kNever));
    plan_ends(now_s);
    sample(now_s);
  }

  void submit(double now_s) {
    const auto job = static_cast<int32_t>(submitted_++);
    state(job).checked_s = now_s;
    in_system_.push_back(job);
    order_->submitted(job);
  }

  void end_jobs(double now_s) {
    for (int32_t job : ending_) {
      MuriState& ended = state(job);
      ended.ran_s += now_s - ended.checked_s;
      order_->ended(job);
      nodes_.give(ended.place);
      std::erase(in_system_, job);
      outcome_.jct_s[static_cast<size_t>(job)] = now_s - ended.job->submit_s;
      outcome_.makespan_s = std::max(outcome_.makespan_s, now_s);
      log(now_s, job, kEnd);
    }
  }

  void bring_up_to(MuriState& job, double now_s) {
    if (job.running) {
      const double lost_s = run_.protocol == MuriProtocol::kMuri ? job.job->start_s
                                                                 : std::max(0.0, job.ready_s - job.checked_s);
      job.iterations -= std::max(now_s - job.checked_s - lost_s, 0.0) / job.job->iteration_s;
      // Summed in this order as Muri's simulator does: the published figures depend on the rounding.
      job.ran_s = job.ran_s + now_s - job.checked_s;
    }
    job.checked_s = now_s;
  }

  /// The cluster is cleared, and the jobs are placed again as far as they fit; the published policies place
  /// each where it fits first, Tiresias_L only counts.
  void choose_cleared(double now_s) {
    MuriPacking packing(run_.nodes, run_.gpus_per_node);
    nodes_.clear();
    int64_t free = int64_t{run_.nodes} * run_.gpus_per_node;
    for (int32_t job : order_->order()) {
      MuriState& candidate = state(job);
      const int32_t gpus = candidate.job->gpus;
      bool fits = free >= gpus;
      if (fits && run_.policy == MuriPolicy::kThunderhead) fits = packing.add(gpus);
      if (fits && (run_.policy == MuriPolicy::kSrtf || run_.policy == MuriPolicy::kSrsf))
        fits = nodes_.take_first_fit(gpus);
      if (fits) free -= gpus;
      if (fits && !candidate.running) start(job, now_s);
      if (!fits && candidate.running) preempt(job, now_s);
    }
  }

  /// Those run that fit in order, if all could be moved. They stay where they are; only when a newcomer finds
  /// no room are some moved.
  void choose_placed(double now_s) {
    MuriPacking packing(run_.nodes, run_.gpus_per_node);
    std::vector<int32_t> chosen;
    for (int32_t job : order_->order()) {
      MuriState& candidate = state(job);
      if (packing.add(candidate.job->gpus)) {
        chosen.push_back(job);
      } else if (candidate.running) {
        nodes_.give(candidate.place);
        preempt(job, now_s);
      }
    }
    std::ranges::stable_sort(chosen, std::greater<>(), [&](int32_t job) {
      return std::pair(state(job).job->gpus, state(job).running);
    });
    for (int32_t job : chosen) {
      MuriState& candidate = state(job);
      if (candidate.running || nodes_.take_best_fit(candidate.job->gpus, {}, candidate.place)) continue;
      return move(chosen, now_s);
    }
    for (int32_t job : chosen)
      if (!state(job).running) start(job, now_s);
  }

  /// Places `chosen`, by decreasing size and the running first, anew: each where it is if that is still free.
  void move(std::span<const int32_t> chosen, double now_s) {
    std::vector<int64_t> small(static_cast<size_t>(run_.nodes), 0);  // GPUs of jobs that would have to go
    for (int32_t job : chosen) {
      if (state(job).job->gpus >= run_.gpus_per_node) continue;
      for (auto [node, gpus] : state(job).place) small[static_cast<size_t>(node)] += gpus;
    }
    nodes_.clear();
    for (int32_t job : chosen) {
      MuriState& candidate = state(job);
      if (candidate.running && nodes_.take(candidate.place)) continue;
      candidate.place.clear();
      if (nodes_.take_best_fit(candidate.job->gpus, small, candidate.place)) {
        start(job, now_s);
      } else if (candidate.running) {
        preempt(job, now_s);
      }
    }
  }

  void start(int32_t job, double now_s) {
    state(job).running = true;
    state(job).ready_s = now_s + state(job).job->start_s;
    ++outcome_.starts;
    log(now_s, job, kStart);
  }

  void preempt(int32_t job, double now_s) {
    state(job).running = false;
    state(job).place.clear();
    ++outcome_.preempted;
    log(now_s, job, kPreempt);
  }

  void plan_ends(double now_s) {
    next_end_s_ = kNever;
    for (int32_t job : in_system_) {
      const MuriState& running = state(job);
      if (!running.running) continue;
      const double start_s =
          run_.protocol == MuriProtocol::kPlaced ? std::max(now_s, running.ready_s) : now_s;
      const double end_s = start_s + running.remaining_s();
      if (end_s < next_end_s_) ending_.clear();
      if (end_s <= next_end_s_) ending_.push_back(job);
      next_end_s_ = std::min(next_end_s_, end_s);
    }
  }

  void sample(double now_s) {
    QueueSample sample{now_s, 0, 0};
    for (int32_t job : in_system_) {
      sample.gpus += state(job).running ? state(job).job->gpus : 0;
      sample.waiting += state(job).running ? 0 : 1;
    }
    outcome_.samples.add(sample);
  }

  void log(double now_s, int32_t job, Happened what) {
    log_.add(now_s);
    log_.add(static_cast<uint64_t>(job) * 4 + what);
  }
  MuriState& state(int32_t job) { return states_[static_cast<size_t>(job)]; }

  MuriRun run_;
  std::vector<MuriState> states_;
  MuriNodes nodes_;
  std::unique_ptr<MuriOrder> order_;
  std::vector<int32_t> in_system_, ending_;  // by submission
  size_t submitted_ = 0;
  double next_end_s_ = kNever, next_look_s_ = kNever;
  MuriOutcome outcome_;
  LogHash log_;
};

}  // namespace

MuriOutcome run_muri(std::span<const MuriJob> jobs, const MuriRun& run) {
  return Simulation(jobs, run).finish();
}

}  // namespace th::sim
