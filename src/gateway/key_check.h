#pragma once
// Whose a request is. Whoever guesses keys is made to wait; a right key is never kept waiting for what others
// try from the same address.

#include <mutex>

#include "access/rate_limit.h"
#include "base/units.h"
#include "gateway/config.h"
#include "gateway/openai.h"

namespace th::gateway {

class KeyCheck {
 public:
  using Found = tl::expected<const ApiKey*, ApiError>;  // the key is of the configuration, and lives as long

  /// By the header api-key, else the bearer. Errors: 401. Thread-safe.
  static Found find(const http::Request& request, const GatewayConfig& config);
  /// The same, and counts a wrong key for its address. Errors: 401; 429 when there were too many.
  /// Thread-safe.
  Found check(const http::Request& request, const GatewayConfig& config);

 private:
  std::mutex mutex_;
  access::RateLimit wrong_{{.burst = 500, .interval_ns = 50 * kMillisecond}};  // as the controller has it
};

}  // namespace th::gateway
