#include "control/api.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "control/serving_load.h"

namespace th::control {

namespace {

http::Response json_text(int status, std::string text) {
  return {status, {{"Content-Type", "application/json"}}, std::move(text)};
}

}  // namespace

Answer::Answer(const Json& json, std::optional<std::string> stored_text)
    : body(dump_json(json)), stored(std::move(stored_text)) {}

Result<int64_t> query_int(const http::Request& request, const std::string& name, int64_t fallback) {
  const auto found = request.query.find(name);
  if (found == request.query.end()) return fallback;
  const std::string& text = found->second;
  int64_t out = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (problem != std::errc() || end != text.data() + text.size() || out < 0) {
    return fail(Code::kInvalidArgument,
                "query parameter '" + name + "': want an integer >= 0, got '" + text + "'");
  }
  return out;
}

Status check_fields(const Json& body, const std::vector<std::string>& known) {
  if (!body.is_object()) return fail(Code::kInvalidArgument, "body: want a JSON object");
  for (const auto& [name, value] : body.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return fail(Code::kInvalidArgument, "body: unknown field '" + name + "'" + did_you_mean(name, known));
  }
  return {};
}

Api::Api(Loop& loop, std::string gateway_token_sha256)
    : loop_(loop),
      gateway_token_sha256_(std::move(gateway_token_sha256)),
      serving_load_(std::make_unique<ServingLoad>()) {}
Api::~Api() = default;

http::Router Api::router() {
  http::Router router;
  add_fleet_routes(router);
  add_slice_routes(router);
  add_stack_routes(router);
  add_data_routes(router);
  add_job_routes(router);
  add_serving_routes(router);
  add_key_routes(router);
  add_session_routes(router);
  add_node_routes(router);
  add_gateway_routes(router);
  add_event_routes(router);
  add_queue_routes(router);
  add_console_routes(router);
  add_contract_routes(router);
  add_exec_routes(router);
  return router;
}

void Api::attach(Controller& controller) {
  controller_ = &controller;
  controller.on_committed = [this](const ledger::Entry& entry) {
    serving_load_->record(entry);
    publish(entry);
  };
  controller.jobs.on_metrics = [this](const std::string& job, const StoredLine& line) {
    publish_progress(job, line);
  };
}

void Api::refuse_commands(std::optional<Error> why) { refusal_ = std::move(why); }

void Api::add(http::Router& router, const char* method, const char* pattern, Need need, Raw handler) {
  auto on_loop = std::make_shared<Raw>(std::move(handler));
  router.add(method, pattern, [this, need, on_loop](http::Request request, http::Responder responder) {
    auto shared = std::make_shared<http::Request>(std::move(request));
    const bool posted = loop_.post([this, need, on_loop, shared, responder] {
      Result<Caller> caller = identify(*controller_, need, *shared, gateway_token_sha256_);
      if (!caller) return responder.fail(caller.error());
      controller_->core.set_caller(*std::move(caller));
      (*on_loop)(*controller_, *shared, responder);
      controller_->core.set_caller({});
    });
    if (!posted) responder.fail({Code::kUnavailable, "the controller is overloaded or stopping; try again"});
  });
}

void Api::read(http::Router& router, const char* pattern, Read handler, Need need) {
  add(router, "GET", pattern, need,
      [need, handler = std::move(handler)](Controller& c, const http::Request& request,
                                           const http::Responder& responder) {
        Result<Json> body = handler(c, request);
        if (!body) return responder.fail(body.error());
        if (!c.core.ledger().has_staged() || need.by == Need::By::kAnyone) return responder.send(*body);
        // It tells of events that are staged: it is told when they are durable.
        c.core.after_commit([responder, body] { responder.send(*body); });
      });
}

void Api::write(http::Router& router, const char* method, const char* pattern, Need need, Write handler) {
  write_late(router, method, pattern, need,
             [handler = std::move(handler)](Controller& c, const http::Request& request, const Json& body,
                                            const Done& done) { done(handler(c, request, body)); });
}

void Api::write_late(http::Router& router, const char* method, const char* pattern, Need need,
                     LateWrite handler) {
  add(router, method, pattern, need,
      [this, handler = std::move(handler)](Controller&, const http::Request& request,
                                           const http::Responder& responder) {
        run_write(request, responder, handler);
      });
}

void Api::run_write(const http::Request& request, const http::Responder& responder,
                    const LateWrite& handler) {
  if (refusal_) return responder.fail(*refusal_);
  if (request.body.size() > kMaxBodyBytes) {
    const Error error{Code::kInvalidArgument,
                      "body: " + std::to_string(request.body.size()) + " bytes; at most 1 MiB is taken"};
    return responder.fail(error, 413);
  }
  Core& core = controller_->core;
  const std::string key = request.header("Idempotency-Key").value_or("");
  if (key.size() > 200)
    return responder.fail({Code::kInvalidArgument, "Idempotency-Key: over 200 characters"});
  const std::string sha256 = sha256_hex(request.method + "\n" + request.path + "\n" + request.body);
  if (!key.empty()) {
    auto earlier = core.ledger().find_answer(key, sha256);
    if (!earlier) return responder.fail(earlier.error());
    if (*earlier) {
      const http::Response response = json_text(static_cast<int>((*earlier)->status), (*earlier)->body);
      // It may be staged only: it is told when it is durable, like the first one.
      core.after_commit([responder, response] { responder.send(response); });
      return;
    }
  }
  Result<Json> body = request.body.empty() ? Json::object() : parse_json(request.body, "body");
  if (!body) return responder.fail(body.error());
  handler(*controller_, request, *body, [&core, responder, key, sha256](Result<Answer> answer) {
    if (!answer) return responder.fail(answer.error());
    if (!key.empty()) core.ledger().stage_answer(key, sha256, 200, answer->stored.value_or(answer->body));
    http::Response response = json_text(200, std::move(answer->body));
    response.headers.insert(response.headers.end(), answer->headers.begin(), answer->headers.end());
    core.after_commit([responder, response = std::move(response)] { responder.send(response); });
  });
}

void Api::close_streams() {
  for (http::Stream& stream : streams_) stream.close();
  streams_.clear();
}

}  // namespace th::control
