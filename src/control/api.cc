#include "control/api.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "control/api_signin.h"
#include "control/serving_load.h"
#include "control/visible.h"

namespace th::control {

namespace {

http::Response json_text(int status, std::string text) {
  return {status, {{"Content-Type", "application/json"}}, std::move(text)};
}

// The end of an answer that ended keys.
constexpr std::string_view kTold = ",\"gateways_told\":true}", kNotTold = ",\"gateways_told\":false}";

/// For as long as it lives; then who acted before does again, whatever was thrown.
class ActAs {
 public:
  ActAs(Core& core, Caller caller) : core_(core), before_(core.who()) { core_.set_caller(std::move(caller)); }
  ~ActAs() { core_.set_caller(before_); }

 private:
  Core& core_;
  const Caller before_;
};

/// Keys of different callers never meet. The operator's are as they were before there were others.
std::string of_caller(const Caller& who) {
  const bool operator_key = who.owner.account.empty() && who.user.empty() && who.owner.user == "admin";
  return operator_key ? "" : (who.user.empty() ? who.key : who.user) + "/";
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
  add_fleet_map_routes(router);
  add_slice_routes(router);
  add_stack_routes(router);
  add_data_routes(router);
  add_job_routes(router);
  add_serving_routes(router);
  add_key_routes(router);
  add_session_routes(router);
  add_people_routes(router);
  add_invitation_routes(router);
  add_audit_routes(router);
  add_sign_in_routes(router);
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
  const bool changes = std::string_view(method) != "GET" && need.by == Need::By::kRole;
  router.add(
      method, pattern, [this, need, changes, on_loop](http::Request request, http::Responder responder) {
        auto shared = std::make_shared<http::Request>(std::move(request));
        const bool posted = loop_.post([this, need, changes, on_loop, shared, responder] {
          Caller caller;
          if (Status known = identify(*controller_, need, *shared, gateway_token_sha256_, caller); !known) {
            if (changes) audit(*shared, caller, known, 0);
            return refuse_caller(*shared, responder, known.error());
          }
          const ActAs acting(controller_->core, std::move(caller));
          (*on_loop)(*controller_, *shared, responder);
        });
        if (!posted)
          responder.fail({Code::kUnavailable, "the controller is overloaded or stopping; try again"});
      });
}

/// A right key is never kept waiting for what others try from the same address.
void Api::refuse_caller(const http::Request& request, const http::Responder& responder, const Error& error) {
  const bool wrong_key = error.code == Code::kUnauthenticated &&
                         (request.bearer() || request.header("api-key") || session_of(request));
  if (!wrong_key) return responder.fail(error);
  const int64_t wait = sign_in_.try_wrong_key(request.peer, controller_->core.now_ns());
  wait > 0 ? refuse_for_now(responder, wait) : responder.fail(error);
}

void Api::read(http::Router& router, const char* pattern, Read handler, Need need) {
  add(router, "GET", pattern, need,
      [need, handler = std::move(handler)](Controller& c, const http::Request& request,
                                           const http::Responder& responder) {
        Result<Json> body = handler(c, request);
        if (!body) return responder.fail(redacted(c.core, body.error()));
        const Json told = redacted(c.core, *std::move(body));
        if (!c.core.ledger().has_staged() || need.by == Need::By::kAnyone) return responder.send(told);
        // It tells of events that are staged: it is told when they are durable.
        c.core.after_commit([responder, told] { responder.send(told); });
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
  std::string key = request.header("Idempotency-Key").value_or("");
  if (key.size() > 200)
    return responder.fail({Code::kInvalidArgument, "Idempotency-Key: over 200 characters"});
  if (!key.empty()) key = of_caller(core.who()) + key;
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
  const int64_t before = core.state().seq;
  Result<Json> body = request.body.empty() ? Json::object() : parse_json(request.body, "body");
  if (!body) return finish_write(request, responder, {key, sha256}, before, fail(body.error()));
  http::Request head;  // some answer when the request is gone
  head.method = request.method, head.path = request.path, head.peer = request.peer;
  auto returned = std::make_shared<bool>(false);
  const Caller who = core.who();
  handler(*controller_, request, *body,
          [this, head, responder, who, key, sha256, before, returned](Result<Answer> answer) {
            Core& core = controller_->core;
            const ActAs acting(core, who);
            // Later on others have staged events as well; its own is the last one.
            const int64_t after_seq = *returned ? core.state().seq - 1 : before;
            finish_write(head, responder, {key, sha256}, after_seq, std::move(answer));
          });
  *returned = true;
}

void Api::finish_write(const http::Request& request, const http::Responder& responder,
                       const std::pair<std::string, std::string>& idempotency, int64_t after_seq,
                       Result<Answer> answer) {
  Core& core = controller_->core;
  audit(request, core.who(), answer ? Status() : fail(answer.error()), after_seq);
  if (!answer) return responder.fail(redacted(core, answer.error()));
  answer->body = redacted(core, std::move(answer->body));
  if (answer->ends_keys) answer->body.replace(answer->body.rfind('}'), 1, kTold);
  if (!idempotency.first.empty()) {
    core.ledger().stage_answer(idempotency.first, idempotency.second, 200,
                               answer->stored.value_or(answer->body));
  }
  http::Response response = json_text(200, std::move(answer->body));
  response.headers.insert(response.headers.end(), answer->headers.begin(), answer->headers.end());
  if (!answer->ends_keys) {
    return core.after_commit([responder, response = std::move(response)] { responder.send(response); });
  }
  core.after_commit([this, responder, response = std::move(response)] {
    controller_->deployments.when_gateways_know([responder, response](bool told) {
      http::Response out = response;
      if (!told) out.body.replace(out.body.size() - kTold.size(), kTold.size(), kNotTold);
      responder.send(out);
    });
  });
}

void Api::send(Controller& c, const http::Responder& responder, const Result<Json>& answer) {
  if (!answer) return responder.fail(redacted(c.core, answer.error()));
  responder.send(redacted(c.core, *answer));
}

void Api::close_streams() {
  for (Reader& reader : readers_) reader.stream.close();
  readers_.clear();
}

}  // namespace th::control
