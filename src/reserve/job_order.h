#pragma once
// In which order to run jobs so that the mean completion time is small: a Gittins index on hazards learnt
// from the jobs seen so far when durations are unknown, the remaining work when they are known. See
// docs/design/0004-job-order.md.

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace th::reserve {

/// Remaining work of a job whose duration is known; smaller goes first. Pure. Cost: one pow.
double known_duration_key(double remaining_s, int32_t gpus);

struct JobOrderOptions {
  int32_t neighbours = 30;      // looked at on each side in order of submission
  double all_weight = 10;       // pseudo-counts: of the prior in the hazard of all jobs,
  double size_weight = 2;       // of all jobs in that of one GPU count,
  double local_weight = 1;      // of that GPU count in that of a neighbourhood
  double neighbour_weight = 8;  // of one observed neighbour at rank 0, submitted at the same time
  double rank_decay = 4;        // ranks at which that falls to 1/e
  double apart_s = 60;          // submissions this far apart weigh 1/sqrt(2)
};

/// Learns from the jobs that it is told of. It is told when a job was submitted, how many GPUs it asks for,
/// how long it has run, and when it ended: what a scheduler sees. Service is time on the GPUs in seconds,
/// whatever the number of GPUs. Thread: one owner. Deterministic. Memory: under 64 bytes a job.
class JobOrder {
 public:
  static constexpr int kBins = 64;
  using Job = int32_t;

  explicit JobOrder(const JobOrderOptions& options = {});

  /// Jobs are numbered from 0 in the order of these calls, which is that of their submission. gpus >= 1.
  Job submit(double submit_s, int32_t gpus);
  /// The job has attained this much service and goes on; never less than before.
  void serve(Job job, double service_s);
  void end(Job job, double service_s);

  /// GPUs over the best chance of ending per second of service, from the attained service on; the smallest
  /// goes first. Kept until the job or one of its neighbours is told of again: between those moments the
  /// hazards of all jobs move it little. Cost: O(1) when kept, else O(neighbours + bins), about 2 µs.
  double key(Job job);
  /// Forgets the kept keys, so that the hazards of all jobs show.
  void renew();

  /// Service at which the key passes `limit`, looked for at the edges of bins in [from_s, to_s]; infinity
  /// when it does not. Cost: that of key() and O(bins) an edge.
  double passes_at(Job job, double limit, double from_s, double to_s) const;

  double service_s(Job job) const { return seen_[static_cast<size_t>(job)].service_s; }

 private:
  using Bins = std::array<double, kBins>;
  struct Seen {
    double submit_s;
    double service_s = 0;
    int32_t gpus;
    int32_t rank;     // among those of its GPU count
    int16_t bin = 0;  // of service_s
    bool ended = false;
    double key = 0;  // 0: to be found
  };
  struct Size {
    std::vector<Job> jobs;
    Bins ends{}, at_risk{};
  };

  /// What the neighbours of a job say, from its present bin on.
  struct Around {
    Bins at_risk{}, ends{};
    const Size* size = nullptr;
    int first_bin = 0;
  };

  Around look_around(Job job) const;
  void observe(Around& around, const Seen& from, Job other, int32_t rank) const;
  double hazard(const Around& around, size_t bin) const;
  double best_rate(const Around& around, int bin, double service_s) const;
  void count(const Seen& seen, int from_bin, int to_bin, bool ended);
  void forget_keys_near(Job job);

  JobOrderOptions options_;
  std::vector<double> rank_weight_;
  Bins ends_{}, at_risk_{}, hazard_{};
  std::map<int32_t, Size> sizes_;  // by GPU count
  std::vector<Seen> seen_;
};

}  // namespace th::reserve
