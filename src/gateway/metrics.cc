#include "gateway/metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace th::gateway {

namespace {

template <class Map>
auto& at(Map& map, std::string_view key) {
  auto found = map.find(key);
  if (found == map.end()) found = map.try_emplace(std::string(key)).first;
  return found->second;
}

void describe(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
}

}  // namespace

void Metrics::count_request(std::string_view deployment, int status, int64_t latency_ns) {
  std::lock_guard lock(mutex_);
  PerDeployment& counters = at(deployments_, deployment);
  ++counters.requests[status];
  counters.latency_ns += latency_ns;
}

void Metrics::count_tokens(std::string_view deployment, int64_t prompt_tokens, int64_t completion_tokens) {
  std::lock_guard lock(mutex_);
  PerDeployment& counters = at(deployments_, deployment);
  counters.prompt_tokens += prompt_tokens;
  counters.completion_tokens += completion_tokens;
}

void Metrics::count_retry(std::string_view deployment) {
  std::lock_guard lock(mutex_);
  ++at(deployments_, deployment).retries;
}

void Metrics::count_refusal(int status) {
  std::lock_guard lock(mutex_);
  ++refusals_[status];
}

void Metrics::PerDeployment::add(const PerDeployment& other) {
  for (const auto& [status, count] : other.requests) requests[status] += count;
  latency_ns += other.latency_ns, retries += other.retries;
  prompt_tokens += other.prompt_tokens, completion_tokens += other.completion_tokens;
}

std::string Metrics::text(const Gauges& gauges, const std::function<bool(std::string_view)>& shown) const {
  std::lock_guard lock(mutex_);
  std::map<std::string, PerDeployment, std::less<>> deployments;
  for (const auto& [name, counters] : deployments_) deployments[shown(name) ? name : "others"].add(counters);
  std::string out;
  auto line = std::back_inserter(out);
  // Names of deployments need no escaping: see check_name.
  describe(out, "th_gateway_requests_total", "counter", "Requests that ended, by deployment and status.");
  for (const auto& [name, counters] : deployments) {
    for (const auto& [status, count] : counters.requests) {
      fmt::format_to(line, "th_gateway_requests_total{{deployment=\"{}\",status=\"{}\"}} {}\n", name, status,
                     count);
    }
  }
  describe(out, "th_gateway_request_seconds_total", "counter", "Time that requests took, summed.");
  for (const auto& [name, counters] : deployments) {
    fmt::format_to(line, "th_gateway_request_seconds_total{{deployment=\"{}\"}} {:.6f}\n", name,
                   static_cast<double>(counters.latency_ns) / 1e9);
  }
  describe(out, "th_gateway_tokens_total", "counter", "Tokens metered, by deployment and kind.");
  for (const auto& [name, counters] : deployments) {
    fmt::format_to(line, "th_gateway_tokens_total{{deployment=\"{}\",kind=\"prompt\"}} {}\n", name,
                   counters.prompt_tokens);
    fmt::format_to(line, "th_gateway_tokens_total{{deployment=\"{}\",kind=\"completion\"}} {}\n", name,
                   counters.completion_tokens);
  }
  describe(out, "th_gateway_retries_total", "counter", "Requests sent again after a replica failed.");
  for (const auto& [name, counters] : deployments) {
    fmt::format_to(line, "th_gateway_retries_total{{deployment=\"{}\"}} {}\n", name, counters.retries);
  }
  describe(out, "th_gateway_refusals_total", "counter", "Requests refused before a deployment was found.");
  for (const auto& [status, count] : refusals_) {
    fmt::format_to(line, "th_gateway_refusals_total{{status=\"{}\"}} {}\n", status, count);
  }
  describe(out, "th_gateway_in_flight", "gauge", "Requests under way.");
  fmt::format_to(line, "th_gateway_in_flight {}\n", gauges.in_flight);
  describe(out, "th_gateway_config_generation", "gauge", "Generation of the configuration in use.");
  fmt::format_to(line, "th_gateway_config_generation {}\n", gauges.config_generation);
  describe(out, "th_gateway_controller_up", "gauge", "1 when the controller answered last time.");
  fmt::format_to(line, "th_gateway_controller_up {}\n", gauges.controller_up ? 1 : 0);
  describe(out, "th_gateway_journal_healthy", "gauge", "1 when usage can be written to the disk.");
  fmt::format_to(line, "th_gateway_journal_healthy {}\n", gauges.journal_healthy ? 1 : 0);
  return out;
}

}  // namespace th::gateway
