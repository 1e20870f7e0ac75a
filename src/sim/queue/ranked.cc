// Preemptive policies: every job has a rank, the smallest goes first, and one that waits takes the GPUs of
// those that run with a larger one, the largest first. Of each size only the best job that waits has to be
// looked at: where it finds no room, no other of its size does.

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>

#include "reserve/job_order.h"
#include "sim/queue/core.h"

namespace th::sim {
namespace {

/// Ranks of jobs. A smaller one goes first.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual void submitted(int32_t job) = 0;
  virtual void ended(int32_t job, double attained_s) = 0;
  virtual double waiting(int32_t job, double attained_s) = 0;
  virtual double running(int32_t job, double attained_s) = 0;
  /// Service at which the rank of a running job has to be found again; infinity: never.
  virtual double next_look_s(int32_t job, double attained_s) = 0;
};

using Ranked = std::pair<double, int32_t>;  // (rank, job)

class Preemptive : public QueuePolicy {
 public:
  Preemptive(QueueCore& core, std::unique_ptr<Ranks> ranks)
      : core_(core), ranks_(std::move(ranks)), room_(core.pool(), core.run().nodes), jobs_(core.jobs()) {}

  void submitted(int32_t job) override {
    ranks_->submitted(job);
    fresh_.push_back(job);
  }

  void ended(int32_t job) override {
    leave_running(job);
    ranks_->ended(job, core_.attained_s(job));
    try_all();
  }

  void look(int32_t job) override {
    const double before = of(job).rank;
    leave_running(job);
    enter_running(job);
    if (waiting_ == 0) return;
    rank_running();
    if (of(job).rank > before) try_all();
  }

  void schedule() override {
    size_t next = 0;
    // Where nobody waits and there is room, ranks do not matter.
    while (waiting_ == 0 && next < fresh_.size() && take(fresh_[next])) {
      core_.start(fresh_[next]);
      enter_running(fresh_[next++]);
    }
    for (; next < fresh_.size(); ++next) wait(fresh_[next]);
    fresh_.clear();
    while (Size* size = best_untried()) {
      const int32_t job = size->waiting.begin()->second;
      if (take(job) || make_room(job)) {
        size->waiting.erase({of(job).rank, job});
        size->untried = !size->waiting.empty();
        --waiting_;
        core_.start(job);
        enter_running(job);
      } else {
        size->untried = false;
      }
    }
  }

 private:
  struct Size {
    std::set<Ranked> waiting;
    bool untried = false;  // something changed since its best job found no room
  };

  struct Job {
    double rank = 0;
    bool ranked = false;  // runs and is in running_
  };

  Job& of(int32_t job) { return jobs_[static_cast<size_t>(job)]; }
  bool take(int32_t job) { return core_.pool().take(core_.state(job).job->gpus, core_.state(job).place); }

  void try_all() {
    if (waiting_ == 0) return;
    for (auto& [gpus, size] : sizes_) size.untried = !size.waiting.empty();
  }

  void wait(int32_t job) {
    Size& size = sizes_[core_.state(job).job->gpus];
    of(job).rank = ranks_->waiting(job, core_.attained_s(job));
    size.waiting.insert({of(job).rank, job});
    size.untried = size.untried || size.waiting.begin()->second == job;
    ++waiting_;
  }

  Size* best_untried() {
    Size* best = nullptr;
    for (auto& [gpus, size] : sizes_) {
      if (!size.untried) continue;
      renew_first(size);
      if (best == nullptr || *size.waiting.begin() < *best->waiting.begin()) best = &size;
    }
    return best;
  }

  /// What was learnt since may have made the first one worse.
  void renew_first(Size& size) {
    for (int tries = 0; tries < 3; ++tries) {
      const auto [rank, job] = *size.waiting.begin();
      const double now = ranks_->waiting(job, core_.attained_s(job));
      if (now == rank) return;
      size.waiting.erase(size.waiting.begin());
      size.waiting.insert({now, job});
      of(job).rank = now;
    }
  }

  /// Its rank is found when somebody waits.
  void enter_running(int32_t job) { unranked_.push_back({job, core_.state(job).runs}); }

  void leave_running(int32_t job) {
    if (of(job).ranked) running_.erase({of(job).rank, job});
    of(job).ranked = false;
  }

  void rank_running() {
    for (auto [job, runs] : unranked_) {
      if (core_.state(job).runs != runs || of(job).ranked) continue;
      const double attained_s = core_.attained_s(job);
      of(job) = {ranks_->running(job, attained_s), true};
      running_.insert({of(job).rank, job});
      const double look_s = ranks_->next_look_s(job, attained_s);
      if (look_s < std::numeric_limits<double>::infinity())
        core_.look_at(job, core_.now_s() + look_s - attained_s);
    }
    unranked_.clear();
  }

  /// Preempts worse jobs so that `job` fits, and takes its place.
  bool make_room(int32_t job) {
    QueueState& state = core_.state(job);
    const double rank = of(job).rank;
    rank_running();
    if (running_.empty() || running_.rbegin()->first <= rank) return false;
    room_.ask(state.job->gpus);
    victims_.clear();
    bool fits = false;
    for (auto worst = running_.rbegin(); worst != running_.rend() && !fits; ++worst) {
      if (worst->first <= rank) return false;
      victims_.push_back(worst->second);
      fits = room_.add(core_.state(worst->second).place);
    }
    if (!fits) return false;
    chosen_.clear();
    for (auto [node, gpus] : room_.nodes()) chosen_.push_back(node);
    for (int32_t victim : victims_) {
      const Place& place = core_.state(victim).place;
      if (std::ranges::any_of(place, [&](auto part) { return std::ranges::count(chosen_, part.first) > 0; }))
        preempt(victim);
    }
    TH_CHECK(take(job));
    return true;
  }

  void preempt(int32_t job) {
    leave_running(job);
    core_.preempt(job);
    wait(job);
    try_all();
  }

  QueueCore& core_;
  std::unique_ptr<Ranks> ranks_;
  RoomFinder room_;
  std::vector<Job> jobs_;
  std::map<int32_t, Size> sizes_;
  std::set<Ranked> running_;
  std::vector<std::pair<int32_t, int32_t>> unranked_;  // (job, which of its runs)
  std::vector<int32_t> fresh_, victims_, chosen_;
  int64_t waiting_ = 0;
};

/// Three queues by attained GPU time, as Muri's simulator sets them for Tiresias_L.
class TiresiasRanks : public Ranks {
 public:
  explicit TiresiasRanks(QueueCore& core) : core_(core) {}
  void submitted(int32_t) override {}
  void ended(int32_t, double) override {}
  double waiting(int32_t job, double attained_s) override {
    return static_cast<double>(level(job, attained_s));
  }
  double running(int32_t job, double attained_s) override { return waiting(job, attained_s); }
  double next_look_s(int32_t job, double attained_s) override {
    const size_t at = level(job, attained_s);
    return at == kLimits.size() ? std::numeric_limits<double>::infinity() : kLimits[at] / gpus(job) + kLateS;
  }

 private:
  static constexpr std::array<double, 2> kLimits = {3250, 7200};
  static constexpr double kLateS = 1e-3;  // so that rounding cannot put the look before the limit
  int32_t gpus(int32_t job) { return core_.state(job).job->gpus; }
  size_t level(int32_t job, double attained_s) {
    size_t at = 0;
    while (at < kLimits.size() && attained_s * gpus(job) >= kLimits[at]) ++at;
    return at;
  }
  QueueCore& core_;
};

/// What the product does, with a smaller neighbourhood.
class LearntRanks : public Ranks {
 public:
  explicit LearntRanks(QueueCore& core) : core_(core), order_({.neighbours = 6}) {}
  void submitted(int32_t job) override {
    const QueueJob& spec = *core_.state(job).job;
    TH_CHECK(order_.submit(spec.submit_s, spec.gpus) == job);
  }
  void ended(int32_t job, double attained_s) override { order_.end(job, attained_s); }
  double waiting(int32_t job, double attained_s) override {
    order_.serve(job, attained_s);
    return order_.key(job);
  }
  double running(int32_t job, double attained_s) override { return kStay * waiting(job, attained_s); }
  double next_look_s(int32_t, double attained_s) override {
    return attained_s + std::max(kLeastApartS, kApart * attained_s);
  }

 private:
  static constexpr double kStay = 0.3;  // as in the order's design record
  static constexpr double kLeastApartS = 600, kApart = 1;
  QueueCore& core_;
  reserve::JobOrder order_;
};

}  // namespace

std::unique_ptr<QueuePolicy> make_tiresias(QueueCore& core) {
  return std::make_unique<Preemptive>(core, std::make_unique<TiresiasRanks>(core));
}

std::unique_ptr<QueuePolicy> make_thunderhead(QueueCore& core) {
  return std::make_unique<Preemptive>(core, std::make_unique<LearntRanks>(core));
}

}  // namespace th::sim
