#pragma once
// A simulated gateway: requests that keys made of deployments, its usage journal on a file that tears, and
// the records that it hands to the control plane, each to be counted once. It checks that they are. The
// journal's form is production's (gateway/journal.h); the requests and the file are simulated. Thread: one
// owner.

#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gateway/journal.h"
#include "ledger/state.h"
#include "sim/world/control_plane.h"
#include "sim/world/recount.h"

namespace th::sim {

class Gateway {
 public:
  Gateway(Clock& clock, uint64_t seed, ControlPlane& plane, OnViolation on_violation);

  void start();
  /// No more requests, crashes and lost messages; what is in the journal is still handed over.
  void wind_down();
  /// Every record was taken, and the control plane said so.
  bool settled() const { return winding_down_ && up_ && unsynced_.empty() && acked_seq_ == last_written(); }
  /// Deployments that it has a replica of, as the control plane told it last.
  const std::set<std::string>& serves() const { return serves_; }
  int64_t records() const { return last_written(); }
  int64_t crashes() const { return crashes_; }
  int64_t tokens() const { return tokens_; }
  uint64_t hash() const { return hash_; }

  /// Each durable batch once, in order.
  void taken(const ledger::UsageRecorded& batch);
  /// Of a state without anything staged: what was said to be taken is, and the sums are those of the records.
  void check(const ledger::State& state) const;

 private:
  using Sums = std::map<std::pair<std::string, std::string>, ledger::TokenUsage>;  // (deployment, key)

  void poll();
  void learn(const std::string& config);
  void serve();
  void sync(int64_t life);
  void compact();
  void crash();
  void restart();
  void hand_over();
  void send(const std::vector<gateway::UsageRecord>& batch, int64_t exchange);
  void answered(int64_t exchange, const std::vector<gateway::UsageRecord>& batch, int status,
                const std::string& body);
  void again(int64_t exchange, int64_t delay_ns);
  int64_t last_written() const { return written_.empty() ? 0 : written_.rbegin()->first; }
  int64_t below(int64_t bound) { return static_cast<int64_t>(prng_.below(static_cast<uint64_t>(bound))); }
  bool chance(int64_t per_mille) { return per_mille > 0 && below(1000) < per_mille; }

  Clock& clock_;
  Prng prng_;
  ControlPlane& plane_;
  OnViolation violation_;
  std::string id_;
  int64_t loses_messages_ = 0, mean_life_ns_ = 0;  // 0: it never crashes

  // The file, and of it what is safe.
  std::string bytes_;
  size_t synced_bytes_ = 0;
  std::map<int64_t, gateway::UsageRecord> written_;  // by seq: every record that was ever safe

  // Of one life.
  int64_t life_ = 0, next_seq_ = 1, acked_seq_ = 0, exchange_ = 0;
  std::deque<gateway::UsageRecord> unsynced_;
  bool up_ = false, handing_over_ = false, winding_down_ = false;

  // Its configuration; a crash leaves it, since it is kept beside the journal.
  std::set<std::string> serves_;
  std::vector<std::string> keys_;
  int64_t generation_ = 0, poll_ = 0;

  int64_t told_seq_ = 0, last_taken_ = 0, crashes_ = 0, tokens_ = 0;
  Sums sums_;  // of what was taken
  uint64_t hash_ = 0;
};

}  // namespace th::sim
