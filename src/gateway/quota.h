#pragma once
// Tokens a minute: a bucket for each deployment, charged with an estimate first and with the real usage at
// the end.

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace th::gateway {

/// Holds at most one minute's tokens and refills evenly. The balance may be below zero when a request used
/// more than was estimated, down to minus eight minutes. Integer arithmetic: a unit is 1/60e9 token, so a
/// refill is ns × tokens a minute.
class TokenBucket {
 public:
  static constexpr int64_t kMaxTokensPerMinute = 10'000'000;

  TokenBucket(int64_t tokens_per_minute, int64_t now_ns);
  /// Takes `tokens` (at most a full bucket's worth: a larger request waits for a full bucket) if they are
  /// there.
  bool take(int64_t tokens, int64_t now_ns);
  /// How long until take(tokens) works, if nobody else takes any; 0: now.
  int64_t wait_ns(int64_t tokens, int64_t now_ns);
  /// After take(estimated): what it really was.
  void correct(int64_t estimated, int64_t real, int64_t now_ns);
  /// Whole tokens; 0 when below zero.
  int64_t remaining(int64_t now_ns);
  /// Keeps the balance, as far as it fits.
  void set_limit(int64_t tokens_per_minute, int64_t now_ns);
  int64_t tokens_per_minute() const { return tokens_per_minute_; }

 private:
  void refill(int64_t now_ns);
  int64_t clamp_tokens(int64_t tokens) const;

  int64_t tokens_per_minute_;
  int64_t balance_units_;
  int64_t last_ns_;
};

/// Thread-safe.
class Quotas {
 public:
  struct Decision {
    bool admitted = true;
    int64_t limit_tokens = 0;  // 0: no limit; the rest is then 0 too
    int64_t remaining_tokens = 0;
    int64_t retry_after_ns = 0;  // when not admitted
    int64_t reset_ns = 0;        // until the bucket is full
  };
  Decision take(std::string_view deployment, int64_t tokens_per_minute, int64_t tokens, int64_t now_ns);
  void correct(std::string_view deployment, int64_t estimated, int64_t real, int64_t now_ns);

 private:
  std::mutex mutex_;
  std::map<std::string, TokenBucket, std::less<>> buckets_;
};

}  // namespace th::gateway
