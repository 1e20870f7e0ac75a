#pragma once
// What a run of jobs over time came to.

#include <cstdint>
#include <span>
#include <vector>

#include "sim/log_hash.h"

namespace th::sim {

/// The cluster at one moment.
struct QueueSample {
  double time_s = 0;
  int64_t gpus = 0;     // in use
  int64_t waiting = 0;  // jobs
};

/// At most about 2,000 samples over a run of unknown length, evenly by events.
class QueueSamples {
 public:
  void add(const QueueSample& sample);
  const std::vector<QueueSample>& all() const { return kept_; }

 private:
  std::vector<QueueSample> kept_;
  int64_t stride_ = 1, seen_ = 0;
};

/// Over numbers, each as its eight bytes.
class LogHash {
 public:
  void add(uint64_t value);
  void add(double value);
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = kLogHashStart;
};

/// The value at index ⌊fraction · n⌋ of the sorted values, at most the last; 0 of none. Reorders `values`.
double quantile(std::vector<double>& values, double fraction);
double mean(std::span<const double> values);

}  // namespace th::sim
