#include "gateway/gateway.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "gateway/controller_link.h"
#include "gateway/key_check.h"
#include "gateway/relay.h"
#include "http/server.h"

namespace th::gateway {

namespace {

constexpr int kServerThreads = 2;
constexpr int64_t kFlushNs = 2 * kSecond;
constexpr size_t kRequestIdDigits = 24;
constexpr size_t kMaxAuthorityBytes = size_t{1} << 20;

/// Counts requests in flight; a permit gives its place back when it is destroyed.
class InFlight : public std::enable_shared_from_this<InFlight> {
 public:
  /// nullptr: no place is left.
  std::shared_ptr<void> admit(const std::string& deployment, int64_t max_total, int64_t max_of_deployment) {
    std::lock_guard lock(mutex_);
    int64_t& of_deployment = of_deployment_[deployment];
    if (total_ >= max_total || of_deployment >= max_of_deployment) return nullptr;
    ++total_;
    ++of_deployment;
    return std::shared_ptr<void>(
        this, [self = shared_from_this(), deployment](void*) { self->release(deployment); });
  }
  int64_t total() const {
    std::lock_guard lock(mutex_);
    return total_;
  }

 private:
  void release(const std::string& deployment) {
    std::lock_guard lock(mutex_);
    --total_;
    if (--of_deployment_[deployment] == 0) of_deployment_.erase(deployment);
  }
  mutable std::mutex mutex_;
  int64_t total_ = 0;
  std::map<std::string, int64_t> of_deployment_;
};

http::Headers rate_limit_headers(const Quotas::Decision& decision) {
  if (decision.limit_tokens == 0) return {};
  return {{"x-ratelimit-limit-tokens", std::to_string(decision.limit_tokens)},
          {"x-ratelimit-remaining-tokens", std::to_string(decision.remaining_tokens)},
          {"x-ratelimit-reset-tokens", format_duration(decision.reset_ns)}};
}

// Pages of any site may ask: what counts is the key, which no browser adds by itself.
const std::pair<std::string, std::string> kAnyOrigin = {"Access-Control-Allow-Origin", "*"};

http::Response preflight() {
  return {.status = 204,
          .headers = {kAnyOrigin,
                      {"Access-Control-Allow-Methods", "POST"},
                      {"Access-Control-Allow-Headers", "Authorization, api-key, Content-Type"},
                      {"Access-Control-Max-Age", "7200"}}};
}

Json model_json(Api api, const Deployment& deployment) {
  if (api == Api::kOpenAi) {
    return {{"id", deployment.name}, {"object", "model"}, {"created", 0}, {"owned_by", "thunderhead"}};
  }
  return {{"id", deployment.name},
          {"object", "model"},
          {"created_at", 0},
          {"status", "succeeded"},
          {"lifecycle_status", "generally-available"},
          {"capabilities",
           {{"fine_tune", false},
            {"inference", true},
            {"completion", true},
            {"chat_completion", true},
            {"embeddings", false}}}};
}

}  // namespace

class Gateway::Impl {
 public:
  static Result<std::unique_ptr<Impl>> start(GatewayOptions options);
  ~Impl();

  uint16_t port() const { return server_->port(); }
  std::string url() const { return tls_.url(port()); }
  bool drain(int64_t timeout_ns);

 private:
  Impl(GatewayOptions options, FileLock lock, std::unique_ptr<UsageJournal> journal)
      : options_(std::move(options)), lock_(std::move(lock)), journal_(std::move(journal)) {}
  Status begin();
  Result<std::string> controller_authority() const;

  http::Router routes();
  void complete(Api api, Endpoint endpoint, http::Request request, http::Responder responder);
  std::optional<http::Response> admit(RelayJob& job, const Deployment& deployment, const ApiKey& key);
  void refuse(const http::Responder& responder, const http::Headers& headers, const ApiError& error);
  void list_models(Api api, const http::Request& request, const http::Responder& responder);
  void show_model(const http::Request& request, const http::Responder& responder);
  void health(const http::Responder& responder) const;
  void metrics(const http::Request& request, const http::Responder& responder) const;
  bool is_controllers(const http::Request& request) const;

  const GatewayOptions options_;
  FileLock lock_;
  std::unique_ptr<UsageJournal> journal_;
  std::unique_ptr<ControllerLink> link_;
  std::unique_ptr<DelayQueue> delays_ = std::make_unique<DelayQueue>();
  std::unique_ptr<http::Client> client_ = std::make_unique<http::Client>(1);
  ReplicaPool replicas_;
  Quotas quotas_;
  KeyCheck keys_;
  Metrics metrics_;
  std::shared_ptr<InFlight> in_flight_ = std::make_shared<InFlight>();
  std::atomic<bool> draining_ = false;
  std::unique_ptr<RelayContext> relays_;
  http::TlsSetup tls_;
  std::unique_ptr<http::Server> server_;
};

Result<std::unique_ptr<Gateway::Impl>> Gateway::Impl::start(GatewayOptions options) {
  std::error_code error;
  std::filesystem::create_directories(options.state_dir, error);
  if (error) return fail(errno_error(options.state_dir.string(), error.value()));
  Result<FileLock> lock = FileLock::acquire(options.state_dir / "gateway.lock");
  if (!lock && lock.error().code == Code::kAlreadyExists) {
    return fail(Code::kAlreadyExists, "another gateway runs: " + lock.error().message);
  }
  if (!lock) return fail(lock.error());
  TH_TRY(auto journal, UsageJournal::open(options.state_dir / "usage.journal"));
  std::unique_ptr<Impl> impl(new Impl(std::move(options), *std::move(lock), std::move(journal)));
  TH_RETURN_IF_ERROR(impl->begin());
  return impl;
}

Result<std::string> Gateway::Impl::controller_authority() const {
  if (!options_.authority_file.empty()) return read_file(options_.authority_file, kMaxAuthorityBytes);
  auto ours = read_file(options_.state_dir / "authority.pem", kMaxAuthorityBytes);
  if (!ours && ours.error().code == Code::kNotFound) return std::string();
  return ours;
}

Status Gateway::Impl::begin() {
  TH_TRY(tls_, http::set_up_tls(options_.tls, options_.state_dir / "tls", "gateway", options_.address));
  ControllerLinkOptions link{.url = options_.controller_url,
                             .token_file = options_.token_file,
                             .config_file = options_.state_dir / "gateway-config.json"};
  TH_TRY(link.authority_pem, controller_authority());
  while (link.url.ends_with('/')) link.url.pop_back();
  TH_TRY(link_, ControllerLink::open(std::move(link), *journal_));
  relays_.reset(new RelayContext{.client = *client_,
                                 .replicas = replicas_,
                                 .quotas = quotas_,
                                 .journal = *journal_,
                                 .delays = *delays_,
                                 .metrics = metrics_,
                                 .config = [this] { return link_->config(); },
                                 .replica_wait_ns = options_.replica_wait_ns,
                                 .replica_idle_ns = options_.replica_idle_ns});
  http::ServerOptions server;
  server.address = options_.address, server.port = options_.port;
  server.threads = kServerThreads;
  server.error_form = refusal_response;
  server.tls = tls_.server;
  // Twice the limit, so that a body that is somewhat too large gets an answer in the API's own words.
  server.max_body_bytes = 2 * options_.max_body_bytes;
  TH_TRY(server_, http::Server::start(server, routes()));
  link_->start();
  return {};
}

Gateway::Impl::~Impl() {
  draining_ = true;
  if (relays_) relays_->stopping = true;
  server_.reset();  // its clients are gone then, and with them the wish for what is under way
  client_.reset();
  delays_.reset();
  link_.reset();
  journal_.reset();
}

bool Gateway::Impl::drain(int64_t timeout_ns) {
  draining_ = true;
  int64_t until_ns = Env::real().monotonic_ns() + timeout_ns;
  while (in_flight_->total() > 0 && Env::real().monotonic_ns() < until_ns) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  bool done = in_flight_->total() == 0;
  link_->flush(kFlushNs);
  return done;
}

http::Router Gateway::Impl::routes() {
  http::Router router;
  auto complete_by = [&](const char* pattern, Api api, Endpoint endpoint) {
    router.add("POST", pattern, [this, api, endpoint](http::Request request, http::Responder responder) {
      complete(api, endpoint, std::move(request), std::move(responder));
    });
    router.add("OPTIONS", pattern,
               [](const http::Request&, const http::Responder& responder) { responder.send(preflight()); });
  };
  complete_by("/openai/deployments/{deployment}/completions", Api::kAzure, Endpoint::kCompletions);
  complete_by("/openai/deployments/{deployment}/chat/completions", Api::kAzure, Endpoint::kChat);
  complete_by("/v1/completions", Api::kOpenAi, Endpoint::kCompletions);
  complete_by("/v1/chat/completions", Api::kOpenAi, Endpoint::kChat);
  router.add("GET", "/v1/models", [this](http::Request request, http::Responder responder) {
    list_models(Api::kOpenAi, request, responder);
  });
  router.add("GET", "/v1/models/{model}",
             [this](http::Request request, http::Responder responder) { show_model(request, responder); });
  router.add("GET", "/openai/models", [this](http::Request request, http::Responder responder) {
    list_models(Api::kAzure, request, responder);
  });
  router.add("GET", "/health", [this](http::Request, http::Responder responder) { health(responder); });
  router.add("GET", "/metrics",
             [this](http::Request request, http::Responder responder) { metrics(request, responder); });
  return router;
}

void Gateway::Impl::refuse(const http::Responder& responder, const http::Headers& headers,
                           const ApiError& error) {
  metrics_.count_refusal(error.status);
  http::Response response = api_error_response(error);
  response.headers.insert(response.headers.end(), headers.begin(), headers.end());
  responder.send(std::move(response));
}

void Gateway::Impl::complete(Api api, Endpoint endpoint, http::Request request, http::Responder responder) {
  RelayJob job;
  job.api = api;
  job.start_ns = Env::real().monotonic_ns();
  job.headers = {{"x-request-id", random_token().substr(0, kRequestIdDigits)}, kAnyOrigin};
  if (api == Api::kAzure) job.headers.emplace_back("apim-request-id", job.headers.front().second);
  ConfigSnapshot config = link_->config();
  const auto found = keys_.check(request, *config);
  if (!found) return refuse(responder, job.headers, found.error());
  const ApiKey& key = **found;
  job.key_id = key.id;
  if (key.tokens_per_minute > 0) job.key_quota = "key:" + key.id;
  if (api == Api::kAzure) {
    if (auto error = check_api_version(request)) return refuse(responder, job.headers, *error);
    job.deployment = request.params["deployment"];
    if (config->find(job.deployment, key) == nullptr)
      return refuse(responder, job.headers, unknown_deployment(api, job.deployment));
  }
  if (request.body.size() > options_.max_body_bytes) {
    return refuse(responder, job.headers,
                  {.status = 413,
                   .type = "invalid_request_error",
                   .code = "request_too_large",
                   .message = fmt::format("The request body has {}; at most {} are taken.",
                                          format_bytes(static_cast<int64_t>(request.body.size())),
                                          format_bytes(static_cast<int64_t>(options_.max_body_bytes))),
                   .param = {},
                   .retry_after_ns = 0});
  }
  auto parsed = parse_completion_request(endpoint, request.body, job.deployment);
  if (!parsed) return refuse(responder, job.headers, parsed.error());
  job.request = *std::move(parsed);
  job.deployment = job.request.model;
  const Deployment* deployment = config->find(job.deployment, key);
  if (deployment == nullptr) return refuse(responder, job.headers, unknown_deployment(api, job.deployment));
  if (auto refusal = admit(job, *deployment, key)) {
    metrics_.count_request(job.deployment, refusal->status, Env::real().monotonic_ns() - job.start_ns);
    refusal->headers.insert(refusal->headers.end(), job.headers.begin(), job.headers.end());
    return responder.send(*std::move(refusal));
  }
  Relay::start(*relays_, std::move(job), std::move(responder));
}

/// All that can refuse a good request to a deployment; what costs nothing to take back comes first.
std::optional<http::Response> Gateway::Impl::admit(RelayJob& job, const Deployment& deployment,
                                                   const ApiKey& key) {
  if (draining_)
    return api_error_response(unavailable("draining", "The gateway is stopping; try again.", kSecond));
  if (!journal_->healthy()) {
    return api_error_response(unavailable(
        "usage_not_recorded", "Usage cannot be written to the gateway's disk at the moment; try again later.",
        5 * kSecond));
  }
  if (deployment.replicas.empty()) {
    return api_error_response(unavailable(
        "no_replica_ready", fmt::format("No replica of deployment '{}' is ready; try again.", job.deployment),
        2 * kSecond));
  }
  job.filter = deployment.filter;
  if (!job.filter->off()) {
    job.prompt_verdict = job.filter->check(job.request.prompt_text);
    if (job.prompt_verdict.blocked) return content_filter_response(*job.filter, job.prompt_verdict);
  }
  std::string().swap(job.request.prompt_text);
  job.permit =
      in_flight_->admit(job.deployment, options_.max_in_flight, options_.max_in_flight_per_deployment);
  if (!job.permit) {
    return api_error_response(too_many("requests",
                                       fmt::format("Too many requests to deployment '{}' are under way; try "
                                                   "again.",
                                                   job.deployment),
                                       kSecond));
  }
  const int64_t now_ns = Env::real().monotonic_ns();
  std::string limited = fmt::format("Deployment '{}'", job.deployment);
  Quotas::Decision decision =
      quotas_.take(deployment.name, deployment.tokens_per_minute, job.request.estimated_tokens, now_ns);
  if (decision.admitted && !job.key_quota.empty()) {
    const Quotas::Decision own =
        quotas_.take(job.key_quota, key.tokens_per_minute, job.request.estimated_tokens, now_ns);
    if (!own.admitted) quotas_.correct(deployment.name, job.request.estimated_tokens, 0, now_ns);
    if (!own.admitted || decision.limit_tokens == 0 || own.remaining_tokens < decision.remaining_tokens)
      decision = own, limited = "The key";
  }
  http::Headers limits = rate_limit_headers(decision);
  job.headers.insert(job.headers.end(), limits.begin(), limits.end());
  if (decision.admitted) return std::nullopt;
  return api_error_response(too_many(
      "tokens",
      fmt::format("{} is at its limit of {} tokens a minute: the request needs about {}, {} are left.",
                  limited, decision.limit_tokens, job.request.estimated_tokens, decision.remaining_tokens),
      decision.retry_after_ns));
}

void Gateway::Impl::list_models(Api api, const http::Request& request, const http::Responder& responder) {
  ConfigSnapshot config = link_->config();
  const auto key = keys_.check(request, *config);
  if (!key) return refuse(responder, {}, key.error());
  if (api == Api::kAzure) {
    if (auto error = check_api_version(request)) return refuse(responder, {}, *error);
  }
  Json data = Json::array();
  for (const auto& [name, deployment] : config->deployments) {
    if (config->find(name, **key) != nullptr) data.push_back(model_json(api, deployment));
  }
  responder.send({{"object", "list"}, {"data", std::move(data)}});
}

void Gateway::Impl::show_model(const http::Request& request, const http::Responder& responder) {
  ConfigSnapshot config = link_->config();
  const auto key = keys_.check(request, *config);
  if (!key) return refuse(responder, {}, key.error());
  const std::string& name = request.params.at("model");
  const Deployment* deployment = config->find(name, **key);
  if (deployment == nullptr) return refuse(responder, {}, unknown_deployment(Api::kOpenAi, name));
  responder.send(model_json(Api::kOpenAi, *deployment));
}

void Gateway::Impl::health(const http::Responder& responder) const {
  ConfigSnapshot config = link_->config();
  bool good = !draining_ && journal_->healthy();
  const char* status = draining_ ? "draining" : good ? "ok" : "usage cannot be recorded";
  responder.send({{"status", status},
                  {"generation", config->generation},
                  {"deployments", config->deployments.size()},
                  {"controller_up", link_->controller_up()},
                  {"in_flight", in_flight_->total()}},
                 good ? 200 : 503);
}

bool Gateway::Impl::is_controllers(const http::Request& request) const {
  const auto token = request.bearer();
  const auto own = token ? read_file(options_.token_file, 1024) : fail(Code::kUnauthenticated, "");
  return own && equal_secret(*token, std::string_view(*own).substr(0, own->find_last_not_of(" \r\n") + 1));
}

/// Names of deployments are told to those who may use them, and to who has the gateway's token.
void Gateway::Impl::metrics(const http::Request& request, const http::Responder& responder) const {
  const ConfigSnapshot config = link_->config();
  const auto key = KeyCheck::find(request, *config);
  const bool all = !key && is_controllers(request);
  auto shown = [&](std::string_view name) { return all || (key && config->find(name, **key) != nullptr); };
  Metrics::Gauges gauges{.in_flight = in_flight_->total(),
                         .config_generation = link_->config()->generation,
                         .controller_up = link_->controller_up(),
                         .journal_healthy = journal_->healthy()};
  responder.send(http::Response{.status = 200,
                                .headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                                .body = metrics_.text(gauges, shown)});
}

Gateway::Gateway(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gateway::~Gateway() = default;

Result<std::unique_ptr<Gateway>> Gateway::start(GatewayOptions options) {
  TH_TRY(auto impl, Impl::start(std::move(options)));
  return std::unique_ptr<Gateway>(new Gateway(std::move(impl)));
}

uint16_t Gateway::port() const { return impl_->port(); }
std::string Gateway::url() const { return impl_->url(); }
bool Gateway::drain(int64_t timeout_ns) { return impl_->drain(timeout_ns); }

}  // namespace th::gateway
