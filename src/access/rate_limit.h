#pragma once
// How often somebody may try: a token bucket for each name or address, in bounded memory.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace th::access {

struct Rate {
  int64_t burst = 1;        // tries at once
  int64_t interval_ns = 0;  // then one each
};

/// Not thread-safe. Cost: O(log n).
class RateLimit {
 public:
  /// Of more than `max_entries` that are not full again the one that is nearest to it is forgotten.
  explicit RateLimit(Rate rate, size_t max_entries = 10'000) : rate_(rate), max_entries_(max_entries) {}

  /// How long until `who` may try; 0: now.
  int64_t wait_ns(const std::string& who, int64_t now_ns) const;
  /// Counts a try, also one over the rate.
  void count(const std::string& who, int64_t now_ns);
  /// wait_ns(), and counts the try where it may be made.
  int64_t take(const std::string& who, int64_t now_ns);
  size_t entries() const { return full_ns_.size(); }

 private:
  void forget(int64_t now_ns);

  const Rate rate_;
  const size_t max_entries_;
  std::map<std::string, int64_t> full_ns_;                // when the bucket is full again
  std::set<std::pair<int64_t, std::string>> by_full_ns_;  // the same
};

/// Whom a rate counts: of "10.0.0.1:4711" the address, of an IPv6 address its first 64 bits, since who has
/// one has them all.
std::string peer_group(std::string_view peer);

}  // namespace th::access
