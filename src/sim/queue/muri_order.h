#pragma once
// The orders in which the policies of run_muri go through the jobs. Private to sim/queue.

#include <memory>
#include <span>
#include <vector>

#include "sim/queue/muri.h"
#include "sim/queue/muri_nodes.h"

namespace th::sim {

/// A job as the simulation sees it.
struct MuriState {
  const MuriJob* job = nullptr;
  double iterations = 0;  // that remain
  double checked_s = 0;   // when that was brought up to date
  double ran_s = 0;       // on GPUs so far, starts included
  double ready_s = 0;     // placed: when the start is over
  bool running = false;
  Place place;  // placed: where, while it runs

  double remaining_s() const { return iterations * job->iteration_s; }
};

class MuriOrder {
 public:
  virtual ~MuriOrder() = default;
  virtual void submitted(int32_t job) = 0;
  virtual void ended(int32_t job) = 0;
  /// Called for each running job at each event, in order of submission, with ran_s brought up to date.
  virtual void ran(int32_t job) = 0;
  /// All jobs that are in the system, the first to run first.
  virtual const std::vector<int32_t>& order() = 0;
  /// After the choice was made and `running` set: the next moment to decide again whatever else happens.
  virtual double decided(double now_s) = 0;
};

/// `states` outlives the order and keeps its place.
std::unique_ptr<MuriOrder> make_muri_order(const MuriRun& run, std::span<const MuriState> states);

}  // namespace th::sim
