#pragma once
// One request on its way: to a replica, to another if that one fails before anything was sent, and back as it
// comes.

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "gateway/completion_stream.h"
#include "gateway/config.h"
#include "gateway/delay_queue.h"
#include "gateway/journal.h"
#include "gateway/metrics.h"
#include "gateway/openai.h"
#include "gateway/quota.h"
#include "gateway/replicas.h"
#include "http/client.h"
#include "http/server.h"

namespace th::gateway {

/// What all relays share; outlives them.
struct RelayContext {
  http::Client& client;
  ReplicaPool& replicas;
  Quotas& quotas;
  UsageJournal& journal;
  DelayQueue& delays;
  Metrics& metrics;
  std::function<ConfigSnapshot()> config;  // the newest: replicas may move while a request waits
  int64_t replica_wait_ns = 0;
  int64_t replica_idle_ns = 0;
  std::atomic<bool> stopping = false;
};

/// A request that was let in.
struct RelayJob {
  Api api = Api::kOpenAi;
  CompletionRequest request;
  std::string deployment;
  std::shared_ptr<const safety::ContentFilter> filter;
  safety::Verdict prompt_verdict;
  std::string key_id;
  std::string key_quota;         // name of the key's own bucket; empty: it has none
  http::Headers headers;         // of the answer: request id, rate limits
  std::shared_ptr<void> permit;  // its place among the requests in flight
  int64_t start_ns = 0;          // monotonic
};

/// Thread: callbacks of server, client, journal and delay queue, one at a time by a mutex. It owns itself
/// through them.
class Relay : public std::enable_shared_from_this<Relay> {
 public:
  static void start(RelayContext& context, RelayJob job, http::Responder responder);

  Relay(RelayContext& context, RelayJob job, http::Responder responder);

 private:
  // All of these hold mutex_ but the ones that callbacks enter by (on_…, attempt).
  void attempt();
  void attempt_locked();
  void send_to(const Replica& replica);
  void on_head(int status);
  bool on_data(std::string_view piece);
  void on_end(Status end);
  void on_client_gone();

  bool take_event(std::string_view data);
  bool deliver(const std::vector<Json>& chunks);
  void retry(const std::string& why);
  void answer_replica_error();
  void give_up(const std::string& why);
  void leave();
  void succeed();
  void meter(int status, std::function<void()> then);
  void answer(http::Response response);
  void settle_unmetered(int status);
  void correct_quotas(int64_t tokens);

  RelayContext& context_;
  RelayJob job_;  // constant but for its permit, which goes with the last word
  const http::Responder responder_;
  std::mutex mutex_;
  std::optional<http::Stream> client_;  // once something was sent of a stream
  std::set<std::string> tried_;         // URLs of replicas that failed this request, in this round
  int64_t look_until_ns_ = 0;
  int generations_ = 0;  // attempts that a replica began to answer
  bool over_ = false;

  // Of the present attempt.
  std::optional<Replica> replica_;
  http::Client::Handle call_;
  int status_ = 0;
  std::string error_body_;
  std::optional<Error> failure_;
  http::EventReader events_;
  std::unique_ptr<CompletionStream> stream_;
  std::unique_ptr<Assembler> assembler_;
};

}  // namespace th::gateway
