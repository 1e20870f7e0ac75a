#include "sim/queue/muri_order.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "reserve/job_order.h"

namespace th::sim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

const MuriState& at(std::span<const MuriState> states, int32_t job) {
  return states[static_cast<size_t>(job)];
}

/// By a key that follows from the remaining time; ties stay in the order of the last time.
class ByRemaining : public MuriOrder {
 public:
  ByRemaining(std::span<const MuriState> states, double (*key)(const MuriState&))
      : states_(states), key_(key) {}
  void submitted(int32_t job) override { order_.push_back(job); }
  void ended(int32_t job) override { std::erase(order_, job); }
  void ran(int32_t) override {}
  const std::vector<int32_t>& order() override {
    std::ranges::stable_sort(order_, {}, [&](int32_t job) { return key_(at(states_, job)); });
    return order_;
  }
  double decided(double) override { return kNever; }

 private:
  std::span<const MuriState> states_;
  double (*key_)(const MuriState&);
  std::vector<int32_t> order_;
};

/// Least attained service in discrete queues; within one, first come first served, the running before the
/// waiting.
class Tiresias : public MuriOrder {
 public:
  explicit Tiresias(std::span<const MuriState> states) : states_(states), level_(states.size(), 0) {}
  void submitted(int32_t job) override { queues_[0].push_back(job); }
  void ended(int32_t job) override { std::erase(queues_[level(job)], job); }
  void ran(int32_t job) override {
    const size_t from = level(job);
    if (from + 1 == queues_.size()) return;
    const MuriState& state = at(states_, job);
    if (state.ran_s * state.job->gpus < kLimits[from]) return;
    std::erase(queues_[from], job);
    queues_[from + 1].push_back(job);
    ++level_[static_cast<size_t>(job)];
  }
  const std::vector<int32_t>& order() override {
    order_.clear();
    for (const auto& queue : queues_) order_.insert(order_.end(), queue.begin(), queue.end());
    return order_;
  }
  double decided(double now_s) override {
    double next_s = kNever;
    for (auto& queue : queues_) {
      std::ranges::stable_partition(queue, [&](int32_t job) { return at(states_, job).running; });
      for (int32_t job : queue) {
        const MuriState& state = at(states_, job);
        if (!state.running || level(job) + 1 == queues_.size()) continue;
        next_s = std::min(next_s, std::ceil(kLimits[level(job)] / state.job->gpus) - state.ran_s + now_s);
      }
    }
    return next_s;
  }

 private:
  static constexpr std::array<double, 2> kLimits = {3250, 7200};  // attained GPU-seconds, of Muri's simulator
  size_t level(int32_t job) const { return level_[static_cast<size_t>(job)]; }

  std::span<const MuriState> states_;
  std::vector<uint8_t> level_;
  std::array<std::vector<int32_t>, kLimits.size() + 1> queues_;
  std::vector<int32_t> order_;
};

/// What the product does when it does not know how long jobs take.
class Gittins : public MuriOrder {
 public:
  explicit Gittins(std::span<const MuriState> states) : states_(states), key_(states.size(), 0) {}
  void submitted(int32_t job) override {
    const MuriJob& spec = *at(states_, job).job;
    TH_CHECK(learnt_.submit(spec.submit_s, spec.gpus) == job);
    order_.push_back(job);
  }
  void ended(int32_t job) override {
    learnt_.end(job, at(states_, job).ran_s);
    std::erase(order_, job);
  }
  void ran(int32_t job) override { learnt_.serve(job, at(states_, job).ran_s); }
  const std::vector<int32_t>& order() override {
    if (++asked_ % kRenew == 0) learnt_.renew();
    for (int32_t job : order_)
      key_[static_cast<size_t>(job)] = learnt_.key(job) * (at(states_, job).running ? kStay : 1);
    std::ranges::stable_sort(order_, {}, [&](int32_t job) { return key_[static_cast<size_t>(job)]; });
    return order_;
  }
  double decided(double now_s) override {
    auto waiting = std::ranges::find_if(order_, [&](int32_t job) { return !at(states_, job).running; });
    if (waiting == order_.end()) return kNever;
    const double limit = key_[static_cast<size_t>(*waiting)] / kStay;
    double next_s = kNever;
    for (int32_t job : order_) {
      const MuriState& state = at(states_, job);
      if (!state.running) continue;
      const double soon_s = state.ran_s + std::max(kLeastApartS, kApart * state.ran_s);
      const double passes_s = learnt_.passes_at(job, limit, soon_s, state.ran_s + (next_s - now_s));
      next_s = std::min(next_s, now_s + passes_s - state.ran_s);
    }
    return next_s;
  }

 private:
  static constexpr double kStay =
      0.3;  // a waiting job must be this much better to take a running one's place
  static constexpr double kLeastApartS = 600, kApart = 0.6;  // so seldom is a running job looked at again

  static constexpr int64_t kRenew = 64;  // decisions between keys made wholly new

  std::span<const MuriState> states_;
  int64_t asked_ = 0;
  reserve::JobOrder learnt_;
  std::vector<double> key_;
  std::vector<int32_t> order_;
};

}  // namespace

std::unique_ptr<MuriOrder> make_muri_order(const MuriRun& run, std::span<const MuriState> states) {
  switch (run.policy) {
    case MuriPolicy::kSrtf:
      return std::make_unique<ByRemaining>(states,
                                           [](const MuriState& state) { return state.remaining_s(); });
    case MuriPolicy::kSrsf:
      return std::make_unique<ByRemaining>(
          states, [](const MuriState& state) { return state.remaining_s() * state.job->gpus; });
    case MuriPolicy::kTiresias:
      return std::make_unique<Tiresias>(states);
    case MuriPolicy::kThunderhead:
      break;
  }
  if (!run.durations_known) return std::make_unique<Gittins>(states);
  return std::make_unique<ByRemaining>(states, [](const MuriState& state) {
    return reserve::known_duration_key(state.remaining_s(), state.job->gpus);
  });
}

}  // namespace th::sim
