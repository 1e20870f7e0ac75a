#pragma once
// Which replica serves the next request: the one with the fewest under way.

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gateway/config.h"

namespace th::gateway {

/// Thread-safe.
class ReplicaPool {
 public:
  /// The replica with the fewest requests under way that is not in `tried`; one that failed within the last
  /// second only when there is no other; among equals the one chosen longest ago. Counts it as under way
  /// until release().
  std::optional<Replica> acquire(const std::vector<Replica>& replicas, const std::set<std::string>& tried,
                                 int64_t now_ns);
  void release(const Replica& replica, bool failed, int64_t now_ns);
  int64_t outstanding(const Replica& replica) const;

 private:
  struct State {
    int64_t outstanding = 0;
    int64_t failed_until_ns = 0;
    uint64_t chosen = 0;  // turn of the last choice
  };
  mutable std::mutex mutex_;
  uint64_t turn_ = 0;
  std::map<std::string, State> states_;  // by URL
};

}  // namespace th::gateway
