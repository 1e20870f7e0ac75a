#include "gateway/relay.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/log.h"

namespace th::gateway {

namespace {

constexpr int64_t kRetryPauseNs = 200 * kMillisecond;
constexpr int64_t kHeadTimeoutNs =
    10 * kMinute;  // a replica may queue a request for long before its first token
constexpr int kMaxGenerations = 3;
constexpr size_t kMaxErrorBytes = size_t{64} << 10;

int64_t now_ns() { return Env::real().monotonic_ns(); }

/// The replica is full or not up; another, or the same a little later, may serve.
bool is_transient(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

}  // namespace

void Relay::start(RelayContext& context, RelayJob job, http::Responder responder) {
  auto relay = std::make_shared<Relay>(context, std::move(job), std::move(responder));
  relay->responder_.on_gone([weak = relay->weak_from_this()] {
    if (auto self = weak.lock()) self->on_client_gone();
  });
  relay->attempt();
}

Relay::Relay(RelayContext& context, RelayJob job, http::Responder responder)
    : context_(context),
      job_(std::move(job)),
      responder_(std::move(responder)),
      look_until_ns_(now_ns() + context.replica_wait_ns) {}

void Relay::attempt() {
  std::lock_guard lock(mutex_);
  if (over_) return;
  context_.stopping ? give_up("the gateway stops") : attempt_locked();
}

void Relay::attempt_locked() {
  ConfigSnapshot config = context_.config();
  const auto known = config->deployments.find(job_.deployment);  // its key was asked when it was let in
  const Deployment* deployment = known == config->deployments.end() ? nullptr : &known->second;
  std::optional<Replica> replica;
  if (deployment != nullptr) replica = context_.replicas.acquire(deployment->replicas, tried_, now_ns());
  if (replica) return send_to(*replica);
  if (now_ns() >= look_until_ns_) return give_up("none answered");
  // All were tried: one of them may be back, or the controller may name another.
  tried_.clear();
  context_.delays.after(kRetryPauseNs, [self = shared_from_this()] { self->attempt(); });
}

void Relay::send_to(const Replica& replica) {
  replica_ = replica;
  status_ = 0;
  error_body_.clear();
  failure_.reset();
  events_ = {};
  stream_ = std::make_unique<CompletionStream>(
      CompletionStream::Options{.endpoint = job_.request.endpoint,
                                .pass_usage = job_.request.include_usage,
                                .annotate = job_.api == Api::kAzure,
                                .choices = job_.request.choices,
                                .prompt_tokens = job_.request.prompt_tokens,
                                .filter = job_.filter,
                                .prompt_verdict = job_.prompt_verdict});
  assembler_ = std::make_unique<Assembler>(job_.request.endpoint);
  http::Call call;
  call.method = "POST";
  call.url =
      replica.url + (job_.request.endpoint == Endpoint::kChat ? "/v1/chat/completions" : "/v1/completions");
  call.headers = {{"Content-Type", "application/json"}};
  call.body = job_.request.upstream_body;
  call.timeout_ns = kHeadTimeoutNs;
  call.idle_timeout_ns = context_.replica_idle_ns;
  auto self = shared_from_this();
  call_ = context_.client.start(
      std::move(call), {.on_head = [self](int status, const http::Headers&) { self->on_head(status); },
                        .on_data = [self](std::string_view piece) { return self->on_data(piece); },
                        .on_end = [self](Status end) { self->on_end(std::move(end)); }});
}

void Relay::on_head(int status) {
  std::lock_guard lock(mutex_);
  status_ = status;
  if (status == 200) ++generations_;
}

bool Relay::on_data(std::string_view piece) {
  std::lock_guard lock(mutex_);
  if (over_) return stream_->complete();  // what follows [DONE] may end in peace
  if (status_ != 200) {
    error_body_ += piece;
    return error_body_.size() <= kMaxErrorBytes;
  }
  Result<std::vector<http::EventReader::Event>> events = events_.feed(piece);
  if (!events) {
    failure_ = events.error();
    return false;
  }
  for (const auto& event : *events) {
    if (!event.data.empty() && !take_event(event.data)) return false;
  }
  return true;
}

/// False: the replica is to stop.
bool Relay::take_event(std::string_view data) {
  std::vector<Json> chunks;
  Status taken = stream_->take(data, chunks);
  if (!deliver(chunks)) {
    leave();
    return false;
  }
  if (!taken) {
    failure_ = taken.error();
    return false;
  }
  if (!over_ && stream_->complete()) {
    succeed();
    return data == "[DONE]";
  }
  return true;
}

/// False: the client is gone, or reads too slowly.
bool Relay::deliver(const std::vector<Json>& chunks) {
  for (const Json& chunk : chunks) {
    if (!job_.request.stream) {
      assembler_->add(chunk);
      continue;
    }
    if (!client_) {
      http::Headers headers = job_.headers;
      headers.emplace_back("Content-Type", "text/event-stream; charset=utf-8");
      headers.emplace_back("Cache-Control", "no-cache");
      client_ = responder_.stream(200, std::move(headers));
    }
    if (!client_->event(dump_json(chunk))) return false;
  }
  return true;
}

void Relay::on_end(Status end) {
  std::lock_guard lock(mutex_);
  call_.reset();
  bool began = status_ == 200;
  bool failed = !over_ && (began || status_ == 0 || is_transient(status_));
  context_.replicas.release(*replica_, failed, now_ns());
  if (over_) return;
  if (began || status_ == 0) {
    std::string why = failure_ ? failure_->message : end ? "its answer ended early" : end.error().message;
    log_warn("deployment {}: replica {} failed: {}", job_.deployment, replica_->id, why);
    if (client_ || context_.stopping || generations_ >= kMaxGenerations) return give_up(why);
    if (began) look_until_ns_ = now_ns() + context_.replica_wait_ns;
    return retry(why);
  }
  if (is_transient(status_) && !context_.stopping && now_ns() < look_until_ns_) return retry("it is busy");
  answer_replica_error();
}

void Relay::retry(const std::string& why) {
  log_debug("deployment {}: trying again, replica {}: {}", job_.deployment, replica_->id, why);
  context_.metrics.count_retry(job_.deployment);
  tried_.insert(replica_->url);
  attempt_locked();
}

/// The replica refused: its words are passed on, since it knows why.
void Relay::answer_replica_error() {
  if (status_ == 502 || status_ == 503 || status_ == 504) return give_up("it is not ready");
  http::Response response;
  if (status_ == 429) {
    response = api_error_response(
        {.status = 429,
         .type = "requests",
         .code = "rate_limit_exceeded",
         .message = fmt::format("All replicas of deployment '{}' are busy; try again.", job_.deployment),
         .param = {},
         .retry_after_ns = kSecond});
  } else {
    Result<Json> body = parse_json(error_body_, "the replica's refusal");
    bool is_error = body && body->is_object() && body->contains("error") && status_ >= 400;
    response =
        is_error
            ? http::json_response(*body, status_)
            : api_error_response({.status = 502,
                                  .type = "server_error",
                                  .code = "bad_replica_answer",
                                  .message = fmt::format("The replica answered with status {}.", status_),
                                  .param = {},
                                  .retry_after_ns = 0});
  }
  int status = response.status;
  answer(std::move(response));
  settle_unmetered(status);
}

/// No replica could do it, or the one that did died with its answer half sent.
void Relay::give_up(const std::string& why) {
  if (client_) {
    ApiError error{.status = 502,
                   .type = "server_error",
                   .code = "replica_failed",
                   .message = fmt::format("The replica failed in the middle of its answer: {}", why),
                   .param = {},
                   .retry_after_ns = 0};
    meter(502, [stream = *client_, text = api_error_json(error)]() mutable {
      stream.event(text);
      stream.close();
    });
    return;
  }
  answer(api_error_response(
      {.status = 503,
       .type = "server_error",
       .code = "no_replica_ready",
       .message = fmt::format("No replica of deployment '{}' is ready; try again.", job_.deployment),
       .param = {},
       .retry_after_ns = 2 * kSecond}));
  settle_unmetered(503);
}

void Relay::on_client_gone() {
  std::lock_guard lock(mutex_);
  if (!over_) leave();
}

/// The client left: its generation is stopped at once, and what was generated so far counts.
void Relay::leave() {
  http::Client::cancel(call_);
  if (generations_ > 0) {
    meter(499, nullptr);
  } else {
    settle_unmetered(499);
  }
}

void Relay::succeed() {
  if (job_.request.stream) {
    meter(200, [stream = client_]() mutable {
      if (!stream) return;
      stream->event("[DONE]");
      stream->close();
    });
    return;
  }
  http::Response response{.status = 200,
                          .headers = {{"Content-Type", "application/json"}},
                          .body = assembler_->body(stream_->usage())};
  meter(200, [self = shared_from_this(), response = std::move(response)]() mutable {
    self->answer(std::move(response));
  });
}

/// Ends the request: `then` runs when its usage is on the disk (or could not be put there, which the journal
/// reports).
void Relay::meter(int status, std::function<void()> then) {
  over_ = true;
  Usage usage = stream_->usage();
  int64_t latency_ns = now_ns() - job_.start_ns;
  correct_quotas(usage.prompt_tokens + usage.completion_tokens);
  context_.metrics.count_request(job_.deployment, status, latency_ns);
  context_.metrics.count_tokens(job_.deployment, usage.prompt_tokens, usage.completion_tokens);
  UsageRecord record{.seq = 0,
                     .time_ns = Env::real().unix_ns(),
                     .key_id = job_.key_id,
                     .deployment = job_.deployment,
                     .prompt_tokens = usage.prompt_tokens,
                     .completion_tokens = usage.completion_tokens,
                     .latency_ns = latency_ns,
                     .status = status};
  context_.journal.append(std::move(record),
                          [then = std::move(then), permit = std::move(job_.permit)](Status) {
                            if (then) then();
                          });
}

void Relay::answer(http::Response response) {
  response.headers.insert(response.headers.end(), job_.headers.begin(), job_.headers.end());
  responder_.send(std::move(response));
}

/// To what was used in place of what was estimated.
void Relay::correct_quotas(int64_t tokens) {
  context_.quotas.correct(job_.deployment, job_.request.estimated_tokens, tokens, now_ns());
  if (!job_.key_quota.empty())
    context_.quotas.correct(job_.key_quota, job_.request.estimated_tokens, tokens, now_ns());
}

/// Ends a request for which nothing was generated.
void Relay::settle_unmetered(int status) {
  over_ = true;
  correct_quotas(0);
  context_.metrics.count_request(job_.deployment, status, now_ns() - job_.start_ns);
  job_.permit.reset();
}

}  // namespace th::gateway
