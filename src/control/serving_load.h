#pragma once
// What deployments have to do now: latencies by the gateway's records, the queue by their replicas' own word.
// Thread: the loop only. Nothing of it is kept over a restart.

#include <deque>
#include <map>
#include <string>

#include "base/json.h"
#include "ledger/event.h"

namespace th::control {

class ServingLoad {
 public:
  /// What is no usage is passed over.
  void record(const ledger::Entry& entry);
  void record(const ledger::UsageRecord& record, int64_t now_ns);
  /// Of the last five minutes, at most the last 512 requests:
  /// {"requests","failed","latency_s":{"p50","p95"}?, "tokens_per_s","since_s"}.
  Json recent(const std::string& deployment, int64_t now_ns) const;

 private:
  struct Taken {
    int64_t at_ns = 0, latency_ns = 0, tokens = 0;
    bool failed = false;
  };
  std::map<std::string, std::deque<Taken>> recent_;
};

/// What `GET url/metrics` of a replica says:
/// {"running","waiting","kv_blocks_used","kv_blocks","tokens_total", "first_token_s"}. Blocks for at most a
/// second. Errors: those of http::fetch.
Result<Json> ask_replica(const std::string& url);
/// The same from the text. What is not in it is 0. Errors: none.
Json replica_load(std::string_view prometheus_text);

}  // namespace th::control
