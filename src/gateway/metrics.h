#pragma once
// Counters of the gateway in Prometheus' text format.

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace th::gateway {

/// Thread-safe.
class Metrics {
 public:
  /// One request to a deployment that exists has ended.
  void count_request(std::string_view deployment, int status, int64_t latency_ns);
  void count_tokens(std::string_view deployment, int64_t prompt_tokens, int64_t completion_tokens);
  void count_retry(std::string_view deployment);
  /// A request that was refused before a deployment was found (wrong key, unknown deployment).
  void count_refusal(int status);

  struct Gauges {
    int64_t in_flight = 0;
    int64_t config_generation = 0;
    bool controller_up = false;
    bool journal_healthy = true;
  };
  /// Deployments that are not `shown` are told as one, "others".
  std::string text(const Gauges& gauges, const std::function<bool(std::string_view)>& shown) const;

 private:
  struct PerDeployment {
    std::map<int, int64_t> requests;  // by status
    int64_t latency_ns = 0;
    int64_t prompt_tokens = 0;
    int64_t completion_tokens = 0;
    int64_t retries = 0;

    void add(const PerDeployment& other);
  };
  mutable std::mutex mutex_;
  std::map<std::string, PerDeployment, std::less<>> deployments_;
  std::map<int, int64_t> refusals_;
};

}  // namespace th::gateway
