// Routes of the other programs: nodes and the gateway; and the event stream.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "control/event_scope.h"
#include "control/views.h"
#include "control/visible.h"

namespace th::control {
namespace {

constexpr int64_t kMaxWaitMs = 10'000;
constexpr size_t kMaxUsageRecords = 10'000;
constexpr size_t kMaxEventStreams = 256;

Result<int64_t> wait_ns(const http::Request& request) {
  TH_TRY(const int64_t ms, query_int(request, "wait_ms", 0));
  return std::min(ms, kMaxWaitMs) * kMillisecond;
}

Result<ledger::UsageRecord> usage_record(const Json& json) {
  TH_RETURN_IF_ERROR(check_fields(json, {"seq", "time_ns", "key_id", "deployment", "prompt_tokens",
                                         "completion_tokens", "latency_ns", "status"}));
  ledger::UsageRecord out;
  TH_TRY(out.seq, get_int(json, "seq"));
  TH_TRY(out.time_ns, get_int(json, "time_ns"));
  TH_TRY(out.key_id, get_string(json, "key_id"));
  TH_TRY(out.deployment, get_string(json, "deployment"));
  TH_TRY(out.prompt_tokens, get_int(json, "prompt_tokens"));
  TH_TRY(out.completion_tokens, get_int(json, "completion_tokens"));
  TH_TRY(out.latency_ns, get_int(json, "latency_ns", 0));
  TH_TRY(out.status, get_int(json, "status", 200));
  constexpr int64_t kMaxTokens = 1'000'000'000;
  const bool sound = out.seq > 0 && out.prompt_tokens >= 0 && out.prompt_tokens <= kMaxTokens &&
                     out.completion_tokens >= 0 && out.completion_tokens <= kMaxTokens;
  if (!sound) return fail(Code::kInvalidArgument, "records: seq counts from 1, tokens are 0 to 1e9");
  return out;
}

}  // namespace

void Api::add_node_routes(http::Router& router) {
  add(router, "POST", "/api/v1/node/{vm}/sync", kAnyone,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto run = [&]() -> Status {
          TH_TRY(const std::string vm,
                 c.nodes.identify(request.params.at("vm"), request.bearer().value_or("")));
          TH_TRY(const int64_t wait, wait_ns(request));
          TH_TRY(const Json body, parse_json(request.body, "sync"));
          TH_TRY(const node::SyncRequest report, node::sync_request_from_json(body));
          c.nodes.sync(vm, report, wait, responder);
          return {};
        };
        if (Status done = run(); !done) responder.fail(done.error());
      });
  add(router, "POST", "/api/v1/node/{vm}/log", kAnyone,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto run = [&]() -> Result<Json> {
          TH_TRY(const std::string vm,
                 c.nodes.identify(request.params.at("vm"), request.bearer().value_or("")));
          TH_TRY(const int64_t offset, query_int(request, "offset", 0));
          const auto text = request.query.find("task");
          if (text == request.query.end())
            return fail(Code::kInvalidArgument, "query parameter 'task' is missing");
          TH_TRY(const node::TaskId task, node::parse_task_id(text->second));
          TH_TRY(const int64_t next, c.nodes.log(vm, task, offset, request.body));
          return Json{{"next_offset", next}};
        };
        auto done = run();
        done ? responder.send(*done) : responder.fail(done.error());
      });
}

void Api::add_gateway_routes(http::Router& router) {
  add(router, "GET", "/api/v1/gateway/config", kGateway,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        const auto have = query_int(request, "have", 0);
        const auto wait = wait_ns(request);
        if (!have) return responder.fail(have.error());
        if (!wait) return responder.fail(wait.error());
        const auto gateway = request.query.find("gateway");
        c.deployments.wait_for_config(gateway == request.query.end() ? "" : gateway->second.substr(0, 64),
                                      *have, *wait, responder);
      });
  write(router, "POST", "/api/v1/gateway/usage", kGateway,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {"journal", "records"}));
          TH_TRY(const std::string journal, get_string(body, "journal"));
          TH_RETURN_IF_ERROR(check_name(journal, "journal"));
          if (!body.contains("records") || !body["records"].is_array() ||
              body["records"].size() > kMaxUsageRecords) {
            return fail(Code::kInvalidArgument, "field 'records': want a list of at most 10,000");
          }
          std::vector<ledger::UsageRecord> records;
          for (const Json& item : body["records"]) {
            TH_TRY(records.emplace_back(), usage_record(item));
          }
          TH_TRY(const int64_t acked, c.deployments.take_usage(journal, std::move(records)));
          return Answer(Json{{"acked_seq", acked}});
        });
}

void Api::add_event_routes(http::Router& router) {
  add(router, "GET", "/api/v1/events", kViewer,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        std::erase_if(readers_, [](const Reader& reader) { return !reader.stream.alive(); });
        if (readers_.size() >= kMaxEventStreams) {
          return responder.fail({Code::kResourceExhausted, "256 event streams are open; close one first"});
        }
        const std::string last = request.header("Last-Event-ID").value_or("");
        int64_t after = 0;
        const auto [end, problem] = std::from_chars(last.data(), last.data() + last.size(), after);
        const bool is_id = problem == std::errc() && end == last.data() + last.size() && after >= 0;
        if (!last.empty() && !is_id) {
          return responder.fail(
              {Code::kInvalidArgument, "Last-Event-ID: want the id of an event, got '" + last + "'"});
        }
        http::Stream stream = responder.event_stream();
        if (!last.empty()) {
          const Status sent = c.core.ledger().read(after, [&](const ledger::Entry& entry) -> Status {
            if (!sees(c, entry)) return {};
            const bool taken =
                stream.event(event_data(c, entry), ledger::kind_of(entry.event), std::to_string(entry.seq));
            return taken ? Status() : fail(Code::kCancelled, "the reader is too slow or gone");
          });
          if (!sent) return stream.close();
        }
        readers_.push_back({stream, c.core.who()});
      });
}

void Api::publish(const ledger::Entry& entry) {
  if (std::holds_alternative<ledger::KeyRevoked>(entry.event) ||
      std::holds_alternative<ledger::RoleGranted>(entry.event))
    end_streams_of_revoked();
  const Caller caller = controller_->core.who();
  const std::string kind = ledger::kind_of(entry.event), id = std::to_string(entry.seq);
  std::erase_if(readers_, [&](Reader& reader) {
    controller_->core.set_caller(reader.who);
    return sees(*controller_, entry) && !reader.stream.event(event_data(*controller_, entry), kind, id);
  });
  controller_->core.set_caller(caller);
}

void Api::publish_progress(const std::string& job, const StoredLine& line) {
  if (line.event != "progress" || readers_.empty()) return;
  const std::string data =
      fmt::format("{{\"job\":\"{}\",\"attempt\":{},\"line\":{}}}", job, line.attempt, line.line);
  const Caller caller = controller_->core.who();
  std::erase_if(readers_, [&](Reader& reader) {
    controller_->core.set_caller(reader.who);
    const auto found = controller_->core.state().jobs.find(job);
    const bool seen =
        found != controller_->core.state().jobs.end() && sees(controller_->core, found->second.owner);
    return seen && !reader.stream.event(data, "progress");
  });
  controller_->core.set_caller(caller);
}

void Api::end_streams_of_revoked() {
  const Core& core = controller_->core;
  for (std::vector<Reader>* readers : {&readers_, &followers_}) {
    std::erase_if(*readers, [&](Reader& reader) {
      if (!reader.stream.alive()) return true;
      const auto key = core.state().keys.find(reader.who.key);
      if (key == core.state().keys.end()) return false;  // a batch script's: its job reads it
      const bool same =
          key->second.valid_at(core.now_ns()) && controller_->access.role_of(key->second) == reader.who.role;
      if (!same) reader.stream.close();
      return !same;
    });
  }
}

}  // namespace th::control
