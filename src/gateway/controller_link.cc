#include "gateway/controller_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

namespace th::gateway {

namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kRecordsABatch = 500;
constexpr int64_t kFirstPauseNs = 200 * kMillisecond;
constexpr int64_t kLongestPauseNs = 5 * kSecond;
constexpr int64_t kGatherNs = 50 * kMillisecond;  // records that end together travel together

ConfigSnapshot read_kept(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kMaxConfigBytes);
  if (!text) {
    if (text.error().code != Code::kNotFound)
      log_warn("kept configuration {}: {}", path.string(), text.error().message);
    return nullptr;
  }
  Result<ConfigSnapshot> config = parse_gateway_config(*text);
  if (config) return *config;
  log_warn("kept configuration {}: {}; it is not used", path.string(), config.error().message);
  return nullptr;
}

}  // namespace

Result<std::unique_ptr<ControllerLink>> ControllerLink::open(ControllerLinkOptions options,
                                                             UsageJournal& journal) {
  ConfigSnapshot kept = read_kept(options.config_file);
  Result<std::string> token = read_file(options.token_file, kMaxTokenBytes);
  if (!kept && !token) {
    return fail(Code::kFailedPrecondition,
                fmt::format("token file: {}; start the controller first, or give its token with --token-file",
                            token.error().message));
  }
  if (!kept) kept = std::make_shared<GatewayConfig>();
  return std::unique_ptr<ControllerLink>(new ControllerLink(std::move(options), journal, std::move(kept)));
}

ControllerLink::ControllerLink(ControllerLinkOptions options, UsageJournal& journal, ConfigSnapshot config)
    : options_(std::move(options)),
      id_(random_token().substr(0, 16)),
      journal_(journal),
      config_(std::move(config)) {}

ControllerLink::~ControllerLink() = default;

void ControllerLink::start() {
  poller_ = std::jthread([this](std::stop_token stop) { poll_loop(stop); });
  sender_ = std::jthread([this](std::stop_token stop) { usage_loop(stop); });
}

ConfigSnapshot ControllerLink::config() const {
  std::lock_guard lock(mutex_);
  return config_;
}

void ControllerLink::pause(std::stop_token stop, int64_t ns) {
  std::unique_lock lock(mutex_);
  stopped_.wait_for(lock, stop, std::chrono::nanoseconds(ns), [] { return false; });
}

Result<http::Call> ControllerLink::controller_call(std::string method, const std::string& path) const {
  TH_TRY(std::string token, read_file(options_.token_file, kMaxTokenBytes));
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' '))
    token.pop_back();
  http::Call call;
  call.method = std::move(method);
  call.url = options_.url + path;
  call.headers = {{"Authorization", "Bearer " + token}};
  call.authority_pem = options_.authority_pem;
  call.timeout_ns = options_.poll_ns + 10 * kSecond;
  call.idle_timeout_ns = 10 * kSecond;
  return call;
}

/// Like http::fetch, but ends at once when `stop` is asked for.
Result<http::Response> ControllerLink::exchange(http::Call call, std::stop_token stop) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable ended;
    http::Response response;
    std::optional<Status> end;
  };
  auto waiting = std::make_shared<Waiting>();
  http::Client::Handle handle = client_.start(
      std::move(call),
      {.on_head = [waiting](int status, const http::Headers&) { waiting->response.status = status; },
       .on_data =
           [waiting](std::string_view piece) {
             waiting->response.body += piece;
             return waiting->response.body.size() <= kMaxConfigBytes;
           },
       .on_end =
           [waiting](Status end) {
             std::lock_guard lock(waiting->mutex);
             waiting->end = std::move(end);
             waiting->ended.notify_all();
           }});
  std::stop_callback on_stop(stop, [&] { http::Client::cancel(handle); });
  std::unique_lock lock(waiting->mutex);
  waiting->ended.wait(lock, [&] { return waiting->end.has_value(); });
  if (!*waiting->end) return fail(waiting->end->error());
  if (waiting->response.status < 200 || waiting->response.status > 299)
    return fail(http::error_of(waiting->response));
  return std::move(waiting->response);
}

Status ControllerLink::poll_once(std::stop_token stop) {
  TH_TRY(http::Call call,
         controller_call("GET", fmt::format("/api/v1/gateway/config?have={}&wait_ms={}&gateway={}", have_,
                                            options_.poll_ns / kMillisecond, id_)));
  TH_TRY(http::Response response, exchange(std::move(call), stop));
  controller_up_ = true;
  if (response.body.empty()) return {};
  TH_TRY(ConfigSnapshot config, parse_gateway_config(response.body));
  if (std::exchange(heard_, true) && config->generation == have_) return {};
  {
    std::lock_guard lock(mutex_);
    config_ = config;
  }
  have_ = config->generation;
  log_info("configuration {}: {} deployment(s), {} key(s)", config->generation, config->deployments.size(),
           config->key_of_sha256.size());
  // It is in use already; a disk that is full only costs the next start without a controller.
  if (Status kept = write_file_durable(options_.config_file, response.body, 0600); !kept) {
    log_warn("configuration not kept: {}", kept.error().message);
  }
  return {};
}

void ControllerLink::poll_loop(std::stop_token stop) {
  int64_t pause_ns = kFirstPauseNs;
  std::string last_problem;
  while (!stop.stop_requested()) {
    int64_t begun_ns = Env::real().monotonic_ns();
    int64_t had = have_;
    Status status = poll_once(stop);
    if (stop.stop_requested()) return;
    if (status) {
      if (!last_problem.empty()) log_info("the controller is back");
      last_problem.clear();
      pause_ns = kFirstPauseNs;
      // A controller that does not hold the poll must not be asked in a tight loop.
      bool held = have_ != had || Env::real().monotonic_ns() - begun_ns > kFirstPauseNs;
      if (!held) pause(stop, kFirstPauseNs);
      continue;
    }
    controller_up_ = false;
    have_ = 0;  // the controller that comes back may count from elsewhere
    heard_ = false;
    if (status.error().message != last_problem)
      log_warn("configuration poll: {}; going on with what is known", status.error().message);
    last_problem = status.error().message;
    pause(stop, pause_ns);
    pause_ns = std::min(2 * pause_ns, kLongestPauseNs);
  }
}

Status ControllerLink::hand_over(std::stop_token stop) {
  TH_TRY(std::vector<UsageRecord> records, journal_.unacked(kRecordsABatch));
  if (records.empty()) return fail(Code::kDataLoss, "the journal's next records cannot be read");
  Json batch = {{"journal", journal_.id()}, {"records", Json::array()}};
  for (const UsageRecord& record : records) batch["records"].push_back(to_json(record));
  TH_TRY(http::Call call, controller_call("POST", "/api/v1/gateway/usage"));
  call.headers.emplace_back("Content-Type", "application/json");
  call.body = dump_json(batch);
  TH_TRY(http::Response response, exchange(std::move(call), stop));
  TH_TRY(Json answer, parse_json(response.body, "the controller's answer"));
  TH_TRY(int64_t acked_seq, get_int(answer, "acked_seq"));
  if (acked_seq < records.front().seq) {
    return fail(Code::kUnavailable,
                fmt::format("the controller took no record: it has {} of journal {}, the next is {}",
                            acked_seq, journal_.id(), records.front().seq));
  }
  return journal_.ack(std::min(acked_seq, records.back().seq));
}

void ControllerLink::usage_loop(std::stop_token stop) {
  int64_t pause_ns = kFirstPauseNs;
  while (!stop.stop_requested()) {
    if (!journal_.wait_unacked(200 * kMillisecond)) continue;
    pause(stop, kGatherNs);
    Status status = hand_over(stop);
    if (status) {
      pause_ns = kFirstPauseNs;
      continue;
    }
    if (stop.stop_requested()) return;
    log_debug("usage: {}; the records wait", status.error().message);
    if (status.error().code != Code::kUnavailable && pause_ns == kFirstPauseNs) {
      log_warn("usage: {}; the records wait", status.error().message);
    }
    pause(stop, pause_ns);
    pause_ns = std::min(2 * pause_ns, kLongestPauseNs);
  }
}

void ControllerLink::flush(int64_t timeout_ns) {
  int64_t until_ns = Env::real().monotonic_ns() + timeout_ns;
  while (controller_up_ && Env::real().monotonic_ns() < until_ns && journal_.wait_unacked(0)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace th::gateway
