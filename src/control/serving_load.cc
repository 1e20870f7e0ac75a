#include "control/serving_load.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "http/client.h"

namespace th::control {
namespace {

constexpr int64_t kSpanNs = 5 * kMinute;
constexpr size_t kMaxTaken = 512;

double quantile(const std::vector<int64_t>& sorted_ns, double q) {
  const auto at = static_cast<size_t>(q * static_cast<double>(sorted_ns.size() - 1) + 0.5);
  return static_cast<double>(sorted_ns[at]) / kSecond;
}

double value_of(std::string_view text, const std::string& name) {
  const std::string start = "\n" + name + " ";
  const size_t at = text.find(start);
  return at == std::string_view::npos
             ? 0
             : std::strtod(std::string(text.substr(at + start.size(), 32)).c_str(), nullptr);
}

}  // namespace

void ServingLoad::record(const ledger::Entry& entry) {
  const auto* usage = std::get_if<ledger::UsageRecorded>(&entry.event);
  if (!usage) return;
  for (const ledger::UsageRecord& record : usage->records) this->record(record, entry.time_ns);
}

void ServingLoad::record(const ledger::UsageRecord& record, int64_t now_ns) {
  std::deque<Taken>& taken = recent_[record.deployment];
  taken.push_back(
      {now_ns, record.latency_ns, record.completion_tokens, record.status >= 400 && record.status != 499});
  while (taken.size() > kMaxTaken || taken.front().at_ns < now_ns - kSpanNs) taken.pop_front();
}

Json ServingLoad::recent(const std::string& deployment, int64_t now_ns) const {
  std::vector<int64_t> latencies_ns;
  int64_t failed = 0, tokens = 0, since_ns = now_ns;
  const auto found = recent_.find(deployment);
  if (found != recent_.end()) {
    for (const Taken& one : found->second) {
      if (one.at_ns < now_ns - kSpanNs) continue;
      since_ns = std::min(since_ns, one.at_ns - one.latency_ns);
      latencies_ns.push_back(one.latency_ns);
      failed += one.failed, tokens += one.tokens;
    }
  }
  std::ranges::sort(latencies_ns);
  const double since_s = static_cast<double>(now_ns - since_ns) / kSecond;
  Json out = {{"requests", latencies_ns.size()},
              {"failed", failed},
              {"tokens_per_s", since_s > 0 ? static_cast<double>(tokens) / since_s : 0.0},
              {"since_s", since_s},
              {"latency_s", nullptr}};
  if (!latencies_ns.empty())
    out["latency_s"] = {{"p50", quantile(latencies_ns, 0.5)}, {"p95", quantile(latencies_ns, 0.95)}};
  return out;
}

Json replica_load(std::string_view prometheus_text) {
  const std::string text = "\n" + std::string(prometheus_text);
  const auto count = [&](const char* name) {
    return static_cast<int64_t>(value_of(text, std::string("th_serve_") + name));
  };
  const int64_t first = count("first_token_seconds_count");
  return {{"running", count("sequences_running")},
          {"waiting", count("sequences_waiting")},
          {"kv_blocks_used", count("kv_blocks_used")},
          {"kv_blocks", count("kv_blocks")},
          {"tokens_total", count("completion_tokens_total")},
          {"first_token_s", first == 0 ? Json(nullptr)
                                       : Json(value_of(text, "th_serve_first_token_seconds_sum") /
                                              static_cast<double>(first))}};
}

Result<Json> ask_replica(const std::string& url) {
  TH_TRY(const http::Response answer,
         http::fetch({.url = url + "/metrics", .timeout_ns = kSecond, .max_body_bytes = size_t{256} << 10}));
  if (answer.status != 200) return fail(http::error_of(answer));
  return replica_load(answer.body);
}

}  // namespace th::control
