#include "gateway/quota.h"

#include <algorithm>

#include "base/units.h"

namespace th::gateway {

namespace {
// With at most 10 million tokens a minute the balance stays within ±5e18 units: no overflow.
constexpr int64_t kUnitsPerToken = kMinute;
constexpr int64_t kMaxDebtMinutes = 8;
}  // namespace

TokenBucket::TokenBucket(int64_t tokens_per_minute, int64_t now_ns)
    : tokens_per_minute_(std::clamp<int64_t>(tokens_per_minute, 1, kMaxTokensPerMinute)),
      balance_units_(tokens_per_minute_ * kUnitsPerToken),
      last_ns_(now_ns) {}

int64_t TokenBucket::clamp_tokens(int64_t tokens) const {
  return std::clamp<int64_t>(tokens, 0, tokens_per_minute_);
}

void TokenBucket::refill(int64_t now_ns) {
  const int64_t full = tokens_per_minute_ * kUnitsPerToken;
  const int64_t elapsed_ns = std::clamp<int64_t>(now_ns - last_ns_, 0, (kMaxDebtMinutes + 1) * kMinute);
  balance_units_ = std::min(full, balance_units_ + elapsed_ns * tokens_per_minute_);
  last_ns_ = std::max(last_ns_, now_ns);
}

bool TokenBucket::take(int64_t tokens, int64_t now_ns) {
  if (wait_ns(tokens, now_ns) > 0) return false;
  balance_units_ -= clamp_tokens(tokens) * kUnitsPerToken;
  return true;
}

int64_t TokenBucket::wait_ns(int64_t tokens, int64_t now_ns) {
  refill(now_ns);
  int64_t missing = clamp_tokens(tokens) * kUnitsPerToken - balance_units_;
  return missing <= 0 ? 0 : (missing - 1) / tokens_per_minute_ + 1;
}

void TokenBucket::correct(int64_t estimated, int64_t real, int64_t now_ns) {
  refill(now_ns);
  // A request may have used more than a whole bucket, but no more than the debt that can be owed.
  int64_t used = std::clamp<int64_t>(real, 0, tokens_per_minute_ * kMaxDebtMinutes);
  int64_t balance = balance_units_ / kUnitsPerToken + clamp_tokens(estimated) - used;
  if (balance < -kMaxDebtMinutes * tokens_per_minute_) {
    balance_units_ = -kMaxDebtMinutes * tokens_per_minute_ * kUnitsPerToken;
    return;
  }
  balance_units_ += (clamp_tokens(estimated) - used) * kUnitsPerToken;
  balance_units_ = std::min(balance_units_, tokens_per_minute_ * kUnitsPerToken);
}

int64_t TokenBucket::remaining(int64_t now_ns) {
  refill(now_ns);
  return std::max<int64_t>(balance_units_, 0) / kUnitsPerToken;
}

void TokenBucket::set_limit(int64_t tokens_per_minute, int64_t now_ns) {
  refill(now_ns);
  tokens_per_minute_ = std::clamp<int64_t>(tokens_per_minute, 1, kMaxTokensPerMinute);
  const int64_t full = tokens_per_minute_ * kUnitsPerToken;
  balance_units_ = std::clamp(balance_units_, -kMaxDebtMinutes * full, full);
}

Quotas::Decision Quotas::take(std::string_view deployment, int64_t tokens_per_minute, int64_t tokens,
                              int64_t now_ns) {
  if (tokens_per_minute == 0) return {};
  std::lock_guard lock(mutex_);
  auto found = buckets_.find(deployment);
  if (found == buckets_.end()) {
    found = buckets_.emplace(std::string(deployment), TokenBucket(tokens_per_minute, now_ns)).first;
  }
  TokenBucket& bucket = found->second;
  if (bucket.tokens_per_minute() != tokens_per_minute) bucket.set_limit(tokens_per_minute, now_ns);
  Decision decision;
  decision.retry_after_ns = bucket.wait_ns(tokens, now_ns);
  decision.admitted = bucket.take(tokens, now_ns);
  decision.limit_tokens = bucket.tokens_per_minute();
  decision.remaining_tokens = bucket.remaining(now_ns);
  decision.reset_ns = bucket.wait_ns(bucket.tokens_per_minute(), now_ns);
  return decision;
}

void Quotas::correct(std::string_view deployment, int64_t estimated, int64_t real, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  auto found = buckets_.find(deployment);
  if (found != buckets_.end()) found->second.correct(estimated, real, now_ns);
}

}  // namespace th::gateway
