// EASY backfill: the first job that waits has a reservation at the earliest moment at which enough GPUs are
// free, were every running job to run to its limit; a later job may start where that moment stays.

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <set>

#include "sim/queue/core.h"

namespace th::sim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// Jobs of one size in order of submission; finds the first that waits with at most a given limit.
class SizeQueue {
 public:
  explicit SizeQueue(size_t jobs) : leaves_(std::bit_ceil(std::max<size_t>(jobs, 1))) {
    least_.assign(2 * leaves_, kNever);
  }
  size_t add(int32_t job, double limit_s) {
    jobs_.push_back(job);
    set(jobs_.size() - 1, limit_s);
    return jobs_.size() - 1;
  }
  void remove(size_t rank) { set(rank, kNever); }
  /// -1: none. Cost: O(log jobs).
  int32_t first(double most_s) const {
    if (!(least_[1] <= most_s) || least_[1] == kNever) return -1;
    size_t at = 1;
    while (at < leaves_) at = 2 * at + (least_[2 * at] <= most_s && least_[2 * at] != kNever ? 0 : 1);
    return jobs_[at - leaves_];
  }

 private:
  void set(size_t rank, double limit_s) {
    size_t at = rank + leaves_;
    least_[at] = limit_s;
    for (at /= 2; at > 0; at /= 2) least_[at] = std::min(least_[2 * at], least_[2 * at + 1]);
  }
  size_t leaves_;
  std::vector<double> least_;
  std::vector<int32_t> jobs_;
};

class Backfill : public QueuePolicy {
 public:
  explicit Backfill(QueueCore& core)
      : core_(core),
        room_(core.pool(), core.run().nodes),
        rank_(core.jobs()),
        expected_(core.jobs()),
        started_(core.jobs(), false) {
    std::map<int32_t, size_t> sizes;
    for (size_t i = 0; i < core.jobs(); ++i) ++sizes[core.state(static_cast<int32_t>(i)).job->gpus];
    for (auto [gpus, jobs] : sizes) queues_.emplace(gpus, SizeQueue(jobs));
  }

  void submitted(int32_t job) override {
    const QueueJob& spec = *core_.state(job).job;
    rank_[static_cast<size_t>(job)] = queues_.at(spec.gpus).add(job, spec.limit_s);
    ++submitted_;
    if (!all_) fresh_.push_back(job);
  }

  void ended(int32_t job) override {
    const double expected_s = expected_[static_cast<size_t>(job)];
    running_.erase({expected_s, job});
    // One that ends before its limit may bring the reservation forward.
    if (reserved_for_ >= 0 && expected_s > core_.now_s()) unreserve();
    all_ = true;
  }
  void look(int32_t) override {}

  void schedule() override {
    start_in_order();
    if (reserved_for_ >= 0) {
      if (all_) {
        while (backfill_first()) continue;
      } else {
        for (int32_t job : fresh_)
          if (!started_[static_cast<size_t>(job)] && job != reserved_for_) try_backfill(job);
      }
    }
    all_ = false;
    fresh_.clear();
  }

 private:
  void start_in_order() {
    for (; head_ < submitted_; ++head_) {
      if (started_[static_cast<size_t>(head_)]) continue;
      if (reserved_for_ == head_ && core_.now_s() < reserved_s_) return;
      if (reserved_for_ >= 0) unreserve();
      QueueState& head = core_.state(head_);
      if (!core_.pool().take(head.job->gpus, head.place)) {
        reserve(head_);
        all_ = true;
        return;
      }
      start(head_);
    }
  }

  void start(int32_t job) {
    const QueueState& state = core_.state(job);
    core_.start(job);
    started_[static_cast<size_t>(job)] = true;
    queues_.at(state.job->gpus).remove(rank_[static_cast<size_t>(job)]);
    const double expected_s = core_.now_s() + state.job->limit_s;
    expected_[static_cast<size_t>(job)] = expected_s;
    running_.insert({expected_s, job});
  }

  void reserve(int32_t job) {
    room_.ask(core_.state(job).job->gpus);
    for (auto [expected_s, running] : running_) {
      if (!room_.add(core_.state(running).place)) continue;
      reserved_for_ = job;
      reserved_s_ = expected_s;
      break;
    }
    TH_CHECK(reserved_for_ == job);
    reserved_.clear();
    for (auto [node, gpus] : room_.nodes()) {
      core_.pool().hide(node);
      reserved_.push_back({node, room_.free(node) - gpus});
    }
  }

  void unreserve() {
    show_reserved();
    reserved_.clear();
    reserved_for_ = -1;
  }

  void show_reserved() {
    for (const Reserved& reserved : reserved_) core_.pool().show(reserved.node);
  }

  /// On nodes of the reservation a job may use what will not be needed, or anything if it is gone by then.
  bool take(int32_t job) {
    QueueState& state = core_.state(job);
    const int32_t gpus = state.job->gpus;
    if (gpus > core_.pool().free()) return false;
    if (core_.now_s() + state.job->limit_s <= reserved_s_) {
      if (core_.pool().take(gpus, state.place)) return true;
      show_reserved();
      const bool taken = core_.pool().take(gpus, state.place);
      for (const Reserved& reserved : reserved_) core_.pool().hide(reserved.node);
      return taken;
    }
    if (core_.pool().take(gpus, state.place)) return true;
    for (Reserved& reserved : reserved_) {
      if (std::min(reserved.spare, core_.pool().free(reserved.node)) < gpus) continue;
      core_.pool().take_on(reserved.node, gpus);
      state.place.assign(1, {reserved.node, gpus});
      reserved.spare -= gpus;
      return true;
    }
    return false;
  }

  bool try_backfill(int32_t job) {
    if (!take(job)) return false;
    start(job);
    return true;
  }

  /// Starts the first job in order that can; of each size only two need to be looked at: the first, and the
  /// first that is gone before the reservation.
  bool backfill_first() {
    const double left_s = reserved_s_ - core_.now_s();
    std::vector<int32_t>& candidates = candidates_;
    candidates.clear();
    for (const auto& [gpus, queue] : queues_) {
      // What is as large as the first has no room either.
      if (gpus > core_.pool().free() || gpus >= core_.state(reserved_for_).job->gpus) break;
      const int32_t any = queue.first(std::numeric_limits<double>::max());
      const int32_t brief = queue.first(left_s);
      if (any >= 0) candidates.push_back(any);
      if (brief >= 0 && brief != any) candidates.push_back(brief);
    }
    std::ranges::sort(candidates);
    return std::ranges::any_of(candidates, [&](int32_t job) { return try_backfill(job); });
  }

  struct Reserved {
    int32_t node;
    int32_t spare;  // GPUs of it that will be free beside the reservation
  };

  QueueCore& core_;
  RoomFinder room_;
  std::map<int32_t, SizeQueue> queues_;
  std::vector<size_t> rank_;
  std::vector<double> expected_;
  std::vector<bool> started_;
  std::set<std::pair<double, int32_t>> running_;  // by when they end at the latest
  int32_t submitted_ = 0, head_ = 0, reserved_for_ = -1;
  double reserved_s_ = kNever;
  std::vector<Reserved> reserved_;
  std::vector<int32_t> fresh_, candidates_;
  bool all_ = false;
};

}  // namespace

std::unique_ptr<QueuePolicy> make_backfill(QueueCore& core) { return std::make_unique<Backfill>(core); }

}  // namespace th::sim
