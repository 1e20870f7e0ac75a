#pragma once
// A load of gangs on a fleet: whose sizes are those of Microsoft's Philly cluster, placed and released at
// random.

#include <cstdint>
#include <vector>

#include "base/env.h"
#include "reserve/reserve.h"
#include "sim/log_hash.h"
#include "sim/report/report.h"

namespace th::sim {

/// GPUs of a job of the Philly trace, drawn with the trace's own frequencies (1 to 128). On a fleet a gang
/// gets whole hosts.
int64_t draw_philly_gpus(Prng& random);

/// A fleet with gangs on it. Thread: one owner.
class Load {
 public:
  Load(std::shared_ptr<const fleet::Fleet> fleet, std::string series, uint64_t seed);

  /// Places gangs up to the middle between `fill` (0..1, of the GPUs) and full and releases some at random
  /// down to `fill`, three times over, so that what is free lies scattered. Gives up after 200 refusals in a
  /// row.
  void fill_up(double fill);

  /// One gang of so many GPUs from now on; nullopt when refused. It is kept.
  bool add(int64_t gpus);
  /// Whether one would be placed now.
  bool fits(int64_t gpus) const;
  const reserve::Snapshot& snapshot() const { return snapshot_; }
  const std::vector<reserve::Claim>& claims() const { return claims_; }
  const std::string& series() const { return series_; }
  int64_t gpus_taken() const { return gpus_taken_; }
  int64_t refused() const { return refused_; }
  double fill() const;
  /// Of the placements made so far.
  uint64_t log_hash() const { return log_hash_; }

 private:
  void release_one();

  reserve::Snapshot snapshot_;
  std::string series_;
  Prng random_;
  std::vector<reserve::Claim> claims_;
  int64_t gpus_ = 0, gpus_taken_ = 0, refused_ = 0, next_id_ = 0;
  uint64_t log_hash_ = kLogHashStart;
};

/// Adds a placement to a hash of decisions.
void hash_plan(uint64_t& hash, const reserve::Plan& plan);

/// A request for so many GPUs now, for a day, with nothing else asked.
reserve::Request gang_request(const std::string& series, int64_t gpus);

/// The map of racks: GPUs in use and watts of each, at time 0.
std::vector<RackCell> rack_cells(const reserve::Snapshot& snapshot);

}  // namespace th::sim
