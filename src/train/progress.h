#pragma once
// What rank 0 tells about a training while it goes on: a line twice a second for people and in $TH_METRICS,
// and what looks wrong: a rank that lags behind the others, a loss that jumps.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collective/collective.h"
#include "train/engine.h"
#include "train/metrics.h"

namespace th::train {

/// Names the rank that needed over 1.5 times the median's time for the same work in three reports in a row,
/// once until it has caught up; the lower median, so that one of two ranks can lag. Thread: one owner.
class StragglerWatch {
 public:
  /// `busy`: time of each rank, in any unit. Returns the rank when it is to be named now.
  std::optional<size_t> add(std::span<const float> busy);
  static double median(std::span<const float> busy);

 private:
  std::vector<int> late_;  // reports in a row, by rank
};

/// Names a loss above the running mean (over about 50 steps) by more than 6 standard deviations, once until
/// it is back. Thread: one owner.
class LossWatch {
 public:
  /// Returns what was expected when this loss is to be named.
  std::optional<double> add(double loss);

 private:
  int64_t count_ = 0;
  double mean_ = 0, variance_ = 0;
  bool is_high_ = false;
};

struct ProgressOptions {
  int64_t steps = 0, first_step = 0;  // of the run; that this attempt goes on from
  int64_t tokens_per_step = 0;        // of all ranks
  double flop_per_token = 0;          // forward and backward
  double peak_flop_per_s = 0;         // of all ranks; 0: not known
  std::vector<std::string> nodes;     // by rank
};

class Progress {
 public:
  Progress(ProgressOptions options, Metrics& metrics);

  struct Step {
    int64_t number = 0;
    StepStats stats = {};
    StepTimes times = {};
    int64_t data_ns = 0;
    double learning_rate = 0;
  };
  /// After each step; a line at the first and the last step of a run and every half second.
  void add(const Step& step, bool is_last);
  double tokens_per_s() const { return tokens_per_s_; }  // of this attempt

 private:
  void report(const Step& step, int64_t now_ns);
  void watch_ranks(int64_t step);
  void watch_loss(const Step& step);
  ProgressOptions options_;
  Metrics& metrics_;
  StragglerWatch stragglers_;
  LossWatch losses_;
  int64_t start_ns_, reported_ns_;
  double tokens_per_s_ = 0;
  // Since the last report.
  int64_t steps_ = 0, data_ns_ = 0;
  StepTimes times_;
  std::vector<float> busy_s_;
};

/// Floating-point operations a second of all ranks together in matrix products (768 × 768) of that precision,
/// each measured for 50 ms while the others are at it too. Collective. 0: not known. Errors: of the group.
Result<double> measure_peak_flop_per_s(collective::Group& group, Dtype dtype);

/// The name of each rank's node (TH_NODE, SLURMD_NODENAME, else that of the host), cut to 63 bytes.
/// Collective. Errors: of the group.
Result<std::vector<std::string>> node_names(collective::Group& group);

}  // namespace th::train
