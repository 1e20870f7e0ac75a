#pragma once
// What the policies of run_queue act on: the jobs, the nodes and the events to come. Private to sim/queue.

#include <memory>
#include <span>
#include <vector>

#include "sim/queue/engine.h"
#include "sim/queue/pool.h"

namespace th::sim {

struct QueueState {
  const QueueJob* job = nullptr;
  double left_s = 0;      // of its duration
  double attained_s = 0;  // on GPUs, before `since_s`
  double since_s = 0;     // start of this run, or of this wait
  double waited_s = 0;
  int32_t runs = 0;  // tells events of earlier runs from this one's
  bool running = false;
  bool interrupted = false;  // the next start costs a restart
  Place place;
};

class QueueCore {
 public:
  QueueCore(std::span<const QueueJob> jobs, const QueueRun& run);

  double now_s() const { return now_s_; }
  const QueueRun& run() const { return run_; }
  NodePool& pool() { return pool_; }
  size_t jobs() const { return states_.size(); }
  QueueState& state(int32_t job) { return states_[static_cast<size_t>(job)]; }
  double attained_s(int32_t job);

  /// Its place was taken. It is waiting.
  void start(int32_t job);
  /// Gives back its place. It is running.
  void preempt(int32_t job);
  /// Calls the policy's `look(job)` then, unless the job was preempted or ended before.
  void look_at(int32_t job, double time_s);

 private:
  friend QueueOutcome run_queue(std::span<const QueueJob> jobs, const QueueRun& run);
  struct Event {
    double time_s;
    int32_t job, runs;
    bool end;
  };
  static bool later(const Event& a, const Event& b);
  void push(const Event& event);
  void end(int32_t job);
  void log(int32_t job, uint64_t what);
  void finish();

  QueueRun run_;
  NodePool pool_;
  std::vector<QueueState> states_;
  std::vector<Event> events_;  // a heap, the first to happen on top
  double now_s_ = 0, used_gpu_s_ = 0, used_since_s_ = 0;
  int64_t waiting_ = 0;
  QueueOutcome outcome_;
  LogHash log_;
};

class QueuePolicy {
 public:
  virtual ~QueuePolicy() = default;
  virtual void submitted(int32_t job) = 0;
  virtual void ended(int32_t job) = 0;  // its place is free again
  virtual void look(int32_t job) = 0;   // as asked for by look_at
  /// After all that happens at this moment.
  virtual void schedule() = 0;
};

std::unique_ptr<QueuePolicy> make_fifo(QueueCore& core);
std::unique_ptr<QueuePolicy> make_backfill(QueueCore& core);
std::unique_ptr<QueuePolicy> make_tiresias(QueueCore& core);
std::unique_ptr<QueuePolicy> make_thunderhead(QueueCore& core);

}  // namespace th::sim
