#include "node/link.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/log.h"
#include "base/units.h"
#include "node/validate.h"

namespace th::node {
namespace {

constexpr int64_t kFirstBackoffNs = 200 * kMillisecond;
constexpr int64_t kMaxBackoffNs = 2 * kSecond;
constexpr int64_t kMetricsEveryNs = 200 * kMillisecond;
constexpr int64_t kMetricsAgainNs = kSecond;

int64_t now() { return Env::real().monotonic_ns(); }

/// The VM is no longer known: a wrong or withdrawn token.
bool is_dismissal(const Result<http::Response>& response) {
  return response && (response->status == 401 || response->status == 403);
}

}  // namespace

Link::Link(const NodeConfig& config, Mailbox& mailbox, Handlers handlers)
    : config_(config), mailbox_(mailbox), handlers_(std::move(handlers)) {}

http::Call Link::call(std::string method, const std::string& path) const {
  http::Call call;
  call.method = std::move(method);
  call.url = config_.controller + path;
  call.headers = {{"Authorization", "Bearer " + config_.token}};
  call.authority_pem = config_.authority;
  call.max_body_bytes = kMaxSyncBytes;
  call.timeout_ns = 10 * kSecond;
  return call;
}

void Link::ask_time(std::function<void(std::optional<int64_t>)> done) {
  http::Call health = call("GET", "/health");
  health.headers.clear();
  fetch_async(client_, mailbox_, std::move(health), [this, done](const Result<http::Response>& response) {
    if (!response) {
      back_off(response.error().message);
      return done(std::nullopt);
    }
    backoff_ns_ = sync_retry_ns_ = 0;
    away_ = false;
    auto date = http::find_header(response->headers, "Date");
    auto theirs = date ? parse_http_date(*date) : std::nullopt;
    int64_t ours = Env::real().unix_ns() / kSecond;
    done(theirs ? std::optional(ours - *theirs) : std::nullopt);
  });
}

bool Link::is_news(const SyncRequest& request, int64_t now_ns) const {
  if (!told_) return true;
  if (request.tasks != told_->tasks || request.validation != told_->validation) return true;
  return !request.metrics.empty() && now_ns >= metrics_after_ns_;
}

void Link::sync(SyncRequest request, int64_t now_ns) {
  if (dismissed_ || now_ns < sync_retry_ns_) return;
  bool news = is_news(request, now_ns);
  if (telling_) {
    // A long poll says nothing new; once it is cancelled, its end sends this.
    if (news && !short_under_way_ && sync_call_) http::Client::cancel(std::exchange(sync_call_, nullptr));
    return;
  }
  int64_t wait_ms = news ? 0 : kMaxSyncWaitMs;
  http::Call post = call("POST", fmt::format("/api/v1/node/{}/sync?wait_ms={}", config_.vm, wait_ms));
  post.headers.emplace_back("Content-Type", "application/json");
  post.body = dump_json(to_json(request));
  post.timeout_ns += wait_ms * kMillisecond;
  telling_ = std::move(request);
  short_under_way_ = news;
  last_taken_ = last_taken_ && !news;
  sync_call_ = fetch_async(client_, mailbox_, std::move(post),
                           [this, news](const Result<http::Response>& r) { on_sync_done(r, news); });
}

void Link::on_sync_done(const Result<http::Response>& response, bool was_news) {
  SyncRequest said = *std::exchange(telling_, std::nullopt);
  sync_call_.reset();
  short_under_way_ = false;
  if (!response && response.error().code == Code::kCancelled) return;
  dismissed_ = is_dismissal(response);
  if (dismissed_) return handlers_.on_unknown();
  if (!response) return back_off(response.error().message);
  if (response->status != 200) return back_off(http::error_of(*response).message);
  auto json = parse_json(response->body, "answer of the controller");
  auto reply = json ? sync_reply_from_json(*json) : fail(json.error());
  if (!reply) return back_off(reply.error().message);
  if (std::exchange(away_, false)) log_info("the controller is back");
  backoff_ns_ = 0;
  last_taken_ = true;
  // Lines that came without an ack are said again, but not at every turn.
  bool acked = std::all_of(said.metrics.begin(), said.metrics.end(), [&](const MetricsLine& line) {
    auto ack = reply->ack_metrics.find(line.id.text());
    return ack != reply->ack_metrics.end() && ack->second >= line.line_no;
  });
  if (was_news) metrics_after_ns_ = now() + (acked ? kMetricsEveryNs : kMetricsAgainNs);
  told_ = std::move(said);
  handlers_.on_reply(*reply);
}

void Link::back_off(std::string_view problem) {
  if (!std::exchange(away_, true)) log_warn("the controller does not answer, ranks go on: {}", problem);
  backoff_ns_ = std::clamp(2 * backoff_ns_, kFirstBackoffNs, kMaxBackoffNs);
  sync_retry_ns_ = now() + backoff_ns_;
  handlers_.on_away();
}

std::optional<int64_t> Link::next_sync_ns(int64_t now_ns) const {
  if (now_ns < sync_retry_ns_) return sync_retry_ns_;
  if (now_ns < metrics_after_ns_) return metrics_after_ns_;
  return std::nullopt;
}

std::optional<int64_t> Link::log_retry_ns(int64_t now_ns) const {
  return now_ns < log_retry_ns_ ? std::optional(log_retry_ns_) : std::nullopt;
}

void Link::push_log(const std::string& task, int64_t offset, std::string bytes) {
  log_under_way_ = true;
  http::Call post =
      call("POST", fmt::format("/api/v1/node/{}/log?task={}&offset={}", config_.vm, task, offset));
  post.headers.emplace_back("Content-Type", "application/octet-stream");
  post.body = std::move(bytes);
  fetch_async(client_, mailbox_, std::move(post),
              [this, task](const Result<http::Response>& response) { on_log_done(task, response); });
}

void Link::on_log_done(const std::string& task, const Result<http::Response>& response) {
  log_under_way_ = false;
  // Whether the VM as a whole is still known is for the sync to find out.
  bool refused = response && response->status >= 400 && response->status < 500 && response->status != 408 &&
                 response->status != 429;
  if (refused) return handlers_.on_log(task, fail(http::error_of(*response)));
  if (response && response->status == 200) {
    auto json = parse_json(response->body, "answer to a log push");
    auto next = json ? get_int(*json, "next_offset") : fail(json.error());
    if (next && *next >= 0) return handlers_.on_log(task, *next);
  }
  log_retry_ns_ = now() + kSecond;
}

}  // namespace th::node
