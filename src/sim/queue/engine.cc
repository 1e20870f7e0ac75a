#include "sim/queue/engine.h"

#include <algorithm>
#include <limits>

#include "base/result.h"
#include "sim/queue/core.h"

namespace th::sim {
namespace {

enum Happened : uint64_t { kStart = 1, kPreempt = 2, kEnd = 3 };

class Fifo : public QueuePolicy {
 public:
  explicit Fifo(QueueCore& core) : core_(core) {}
  void submitted(int32_t) override { ++submitted_; }
  void ended(int32_t) override {}
  void look(int32_t) override {}
  void schedule() override {
    for (; next_ < submitted_; ++next_) {
      QueueState& head = core_.state(next_);
      if (!core_.pool().take(head.job->gpus, head.place)) return;
      core_.start(next_);
    }
  }

 private:
  QueueCore& core_;
  int32_t submitted_ = 0, next_ = 0;
};

}  // namespace

std::unique_ptr<QueuePolicy> make_fifo(QueueCore& core) { return std::make_unique<Fifo>(core); }

QueueCore::QueueCore(std::span<const QueueJob> jobs, const QueueRun& run)
    : run_(run), pool_(run.nodes, run.gpus_per_node), states_(jobs.size()) {
  for (size_t i = 0; i < jobs.size(); ++i) {
    TH_CHECK(jobs[i].gpus <= int64_t{run.nodes} * run.gpus_per_node);
    states_[i].job = &jobs[i];
    states_[i].left_s = jobs[i].duration_s;
  }
  outcome_.first_start_s.assign(jobs.size(), -1);
  outcome_.end_s.assign(jobs.size(), -1);
}

bool QueueCore::later(const Event& a, const Event& b) {
  if (a.time_s != b.time_s) return a.time_s > b.time_s;
  return a.end != b.end ? b.end : a.job > b.job;  // ends first
}

void QueueCore::push(const Event& event) {
  events_.push_back(event);
  std::ranges::push_heap(events_, later);
}

void QueueCore::log(int32_t job, uint64_t what) {
  log_.add(now_s_);
  log_.add(static_cast<uint64_t>(job) * 4 + what);
}

double QueueCore::attained_s(int32_t job) {
  const QueueState& of = state(job);
  return of.attained_s + (of.running ? now_s_ - of.since_s : 0);
}

void QueueCore::start(int32_t job) {
  QueueState& of = state(job);
  of.waited_s += now_s_ - of.since_s;
  of.since_s = now_s_;
  of.running = true;
  if (of.interrupted) of.left_s += run_.restart_s;
  of.interrupted = false;
  ++of.runs;
  --waiting_;
  ++outcome_.starts;
  double& first_s = outcome_.first_start_s[static_cast<size_t>(job)];
  if (first_s < 0) first_s = now_s_;
  push({now_s_ + of.left_s, job, of.runs, true});
  log(job, kStart);
}

void QueueCore::preempt(int32_t job) {
  QueueState& of = state(job);
  const double ran_s = now_s_ - of.since_s;
  of.attained_s += ran_s;
  of.left_s = std::max(of.left_s - ran_s, 0.0);
  of.since_s = now_s_;
  of.running = false;
  of.interrupted = true;
  ++of.runs;
  pool_.give(of.place);
  of.place.clear();
  ++waiting_;
  ++outcome_.preemptions;
  log(job, kPreempt);
}

void QueueCore::look_at(int32_t job, double time_s) { push({time_s, job, state(job).runs, false}); }

void QueueCore::end(int32_t job) {
  QueueState& of = state(job);
  of.attained_s = attained_s(job);
  of.running = false;
  pool_.give(of.place);
  of.place = {};
  ++outcome_.ends;
  outcome_.end_s[static_cast<size_t>(job)] = now_s_;
  log(job, kEnd);
}

void QueueCore::finish() {
  std::vector<double> jct_s, waited_s;
  for (size_t i = 0; i < states_.size(); ++i) {
    jct_s.push_back(outcome_.end_s[i] - states_[i].job->submit_s);
    waited_s.push_back(states_[i].waited_s);
  }
  outcome_.makespan_s = now_s_ - (states_.empty() ? 0 : states_.front().job->submit_s);
  const double capacity = double(run_.nodes) * run_.gpus_per_node * outcome_.makespan_s;
  outcome_.utilisation = capacity > 0 ? used_gpu_s_ / capacity : 0;
  outcome_.avg_jct_s = mean(jct_s);
  outcome_.p99_jct_s = quantile(jct_s, 0.99);
  outcome_.wait_p50_s = quantile(waited_s, 0.5);
  outcome_.wait_p99_s = quantile(waited_s, 0.99);
  outcome_.log_hash = log_.value();
}

QueueOutcome run_queue(std::span<const QueueJob> jobs, const QueueRun& run) {
  QueueCore core(jobs, run);
  std::unique_ptr<QueuePolicy> policy;
  if (run.policy == QueuePolicyKind::kFifo) policy = make_fifo(core);
  if (run.policy == QueuePolicyKind::kBackfill) policy = make_backfill(core);
  if (run.policy == QueuePolicyKind::kTiresias) policy = make_tiresias(core);
  if (run.policy == QueuePolicyKind::kThunderhead) policy = make_thunderhead(core);
  const int64_t gpus = int64_t{run.nodes} * run.gpus_per_node;
  size_t next = 0;
  core.used_since_s_ = core.now_s_ = jobs.empty() ? 0 : jobs.front().submit_s;
  const auto still_to_come = [&] {
    // Events of runs that were cut short are not events any more.
    while (!core.events_.empty() && core.events_.front().runs != core.state(core.events_.front().job).runs) {
      std::ranges::pop_heap(core.events_, QueueCore::later);
      core.events_.pop_back();
    }
    return next < jobs.size() || !core.events_.empty();
  };
  while (still_to_come()) {
    double now_s = next < jobs.size() ? jobs[next].submit_s : std::numeric_limits<double>::infinity();
    if (!core.events_.empty()) now_s = std::min(now_s, core.events_.front().time_s);
    core.used_gpu_s_ += static_cast<double>(gpus - core.pool_.free()) * (now_s - core.now_s_);
    core.now_s_ = now_s;
    while (!core.events_.empty() && core.events_.front().time_s <= now_s) {
      std::ranges::pop_heap(core.events_, QueueCore::later);
      const QueueCore::Event event = core.events_.back();
      core.events_.pop_back();
      if (event.runs != core.state(event.job).runs) continue;
      if (event.end) {
        core.end(event.job);
        ++core.state(event.job).runs;
        policy->ended(event.job);
      } else {
        policy->look(event.job);
      }
    }
    for (; next < jobs.size() && jobs[next].submit_s <= now_s; ++next) {
      ++core.outcome_.submissions;
      ++core.waiting_;
      core.state(static_cast<int32_t>(next)).since_s = now_s;
      policy->submitted(static_cast<int32_t>(next));
    }
    policy->schedule();
    core.outcome_.samples.add({now_s, gpus - core.pool_.free(), core.waiting_});
  }
  TH_CHECK(core.outcome_.ends == static_cast<int64_t>(jobs.size()));
  core.finish();
  return std::move(core.outcome_);
}

}  // namespace th::sim
