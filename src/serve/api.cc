#include "serve/api.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <utility>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "serve/metrics.h"
#include "serve/openai.h"
#include "serve/reply.h"

namespace th::serve {
namespace {

int64_t now_s() { return Env::real().unix_ns() / kSecond; }

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

ApiError unavailable(std::string message) {
  return {.status = 503, .message = std::move(message), .type = "server_error", .code = "unavailable"};
}

ApiError unknown_model(const std::string& asked, const std::string& served) {
  return {.status = 404,
          .message = fmt::format("The model '{}' does not exist; '{}' is served here.", asked, served),
          .param = "model",
          .code = "model_not_found"};
}

ApiError refusal(const Error& error, Endpoint endpoint) {
  if (error.code == Code::kInvalidArgument) {
    return {.message = error.message,
            .param = endpoint == Endpoint::kChat ? "messages" : "prompt",
            .code = "invalid_value"};
  }
  const bool full = error.code == Code::kResourceExhausted;
  return {.status = http::status_of(error.code),
          .message = error.message,
          .type = full ? "rate_limit_error" : "server_error",
          .code = full ? "engine_overloaded" : std::string(code_name(error.code))};
}

std::vector<int32_t> encode(const ModelFolder& model, const ApiRequest& request) {
  if (const auto* text = std::get_if<std::string>(&request.prompt)) return model.encode_prompt(*text);
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&request.prompt)) {
    return model.encode_chat(*messages);
  }
  return std::get<std::vector<int32_t>>(request.prompt);
}

}  // namespace

Api::Api(std::string name) : name_(std::move(name)), started_s_(now_s()) {}

http::Router Api::router() {
  http::Router router;
  for (const auto& [path, endpoint] : {std::pair{"/v1/completions", Endpoint::kCompletions},
                                       std::pair{"/v1/chat/completions", Endpoint::kChat}}) {
    router.add("POST", path, [this, endpoint = endpoint](http::Request request, http::Responder responder) {
      if (auto error = complete(endpoint, request, responder)) responder.send(api_error_response(*error));
    });
  }
  router.add("GET", "/health",
             [this](http::Request, http::Responder responder) { responder.send(health()); });
  router.add("GET", "/metrics",
             [this](http::Request, http::Responder responder) { responder.send(metrics()); });
  router.add("GET", "/v1/models", [this](http::Request, http::Responder responder) {
    responder.send({{"object", "list"}, {"data", Json::array({model_json()})}});
  });
  router.add("GET", "/v1/models/{name}", [this](http::Request request, http::Responder responder) {
    const std::string& asked = request.params.at("name");
    if (asked != name_) return responder.send(api_error_response(unknown_model(asked, name_)));
    responder.send(model_json());
  });
  return router;
}

void Api::ready(std::shared_ptr<const ModelFolder> model, std::shared_ptr<Engine> engine) {
  const std::lock_guard lock(mutex_);
  phase_ = Phase::kReady;
  model_ = std::move(model);
  engine_ = std::move(engine);
}

void Api::drain(int64_t grace_ns) {
  std::shared_ptr<Engine> engine;
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::kDraining;
    engine = std::move(engine_);
  }
  if (!engine) return;
  const int64_t deadline_ns = Env::real().monotonic_ns() + grace_ns;
  while (engine->busy() && Env::real().monotonic_ns() < deadline_ns) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Api::View Api::view() const {
  const std::lock_guard lock(mutex_);
  return {phase_, model_, engine_};
}

std::optional<ApiError> Api::complete(Endpoint endpoint, const http::Request& http_request,
                                      const http::Responder& responder) const {
  const View now = view();
  if (!now.engine) {
    return unavailable(now.phase == Phase::kLoading ? "The model is still being loaded: try again soon."
                                                    : "The server is shutting down: ask another replica.");
  }
  const ApiResult<ApiRequest> request = parse_request(endpoint, http_request.body);
  if (!request) return request.error();
  if (!request->model.empty() && request->model != name_) return unknown_model(request->model, name_);

  GenerationRequest generation;
  generation.prompt = encode(*now.model, *request);
  const int64_t context = now.engine->context_tokens();
  const auto prompt = static_cast<int64_t>(generation.prompt.size());
  const char* field = endpoint == Endpoint::kChat ? "messages" : "prompt";
  if (prompt >= context) {
    return ApiError{
        .message = fmt::format("This model's maximum context length is {} tokens, of which the completion "
                               "needs at least one. However, your {} resulted in {} tokens. Please reduce "
                               "the length of the {}.",
                               context, field, prompt, field),
        .param = field,
        .code = "context_length_exceeded"};
  }
  generation.max_tokens = request->max_tokens.value_or(endpoint == Endpoint::kChat ? context : 16);
  generation.sampling = request->sampling;
  generation.sampling.seed = request->seed ? *request->seed : random_seed();
  generation.stop = request->stop;

  const std::string id = (endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + random_token().substr(0, 24);
  AnswerWriter writer(endpoint, id, now_s(), name_, request->include_usage);
  auto reply = std::make_shared<Reply>(responder, std::move(writer), endpoint, *request);
  const Result<uint64_t> submitted = now.engine->submit(
      std::move(generation), [reply = std::move(reply)](const Delta& delta) { return reply->take(delta); });
  if (!submitted) return refusal(submitted.error(), endpoint);
  responder.on_gone([weak = std::weak_ptr(now.engine), generation_id = *submitted] {
    if (const auto engine = weak.lock()) engine->cancel(generation_id);
  });
  return std::nullopt;
}

Json Api::model_json() const {
  return {{"id", name_}, {"object", "model"}, {"created", started_s_}, {"owned_by", "thunderhead"}};
}

http::Response Api::health() const {
  switch (view().phase) {
    case Phase::kLoading:
      return http::json_response({{"status", "loading"}, {"model", name_}}, 503);
    case Phase::kDraining:
      return http::json_response({{"status", "draining"}, {"model", name_}}, 503);
    case Phase::kReady:
      break;
  }
  return http::json_response({{"status", "ok"}, {"model", name_}});
}

http::Response Api::metrics() const {
  const View now = view();
  const EngineStats stats = now.engine ? now.engine->stats() : EngineStats{};
  return {.headers = {{"Content-Type", "text/plain; version=0.0.4"}},
          .body = metrics_text(stats, now.phase == Phase::kReady)};
}

}  // namespace th::serve
