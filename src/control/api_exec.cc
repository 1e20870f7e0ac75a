// Routes of `th exec` and `th attach`: a session is asked for, then both ends come for it.

#include <nlohmann/json.hpp>

#include "control/api.h"
#include "control/api_signin.h"
#include "control/visible.h"
#include "http/websocket.h"

namespace th::control {
namespace {

Result<Execs::Asked> read_asked(const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"rank", "argv", "terminal", "rows", "columns"}));
  Execs::Asked out;
  TH_TRY(out.rank, get_int(body, "rank", 0));
  TH_TRY(out.terminal, get_bool(body, "terminal", false));
  TH_TRY(out.rows, get_int(body, "rows", 24));
  TH_TRY(out.columns, get_int(body, "columns", 80));
  for (const auto& [field, value] : {std::pair{"rows", out.rows}, std::pair{"columns", out.columns}}) {
    if (value < 1 || value > node::kMaxTerminalSide)
      return fail(Code::kInvalidArgument, std::string("field '") + field + "': want 1 to 4096");
  }
  const auto argv = body.find("argv");
  if (argv == body.end() || argv->is_null()) return out;
  if (!argv->is_array() || argv->size() > node::kMaxArguments)
    return fail(Code::kInvalidArgument, "field 'argv': want a list of at most 1024 strings");
  for (const Json& word : *argv) {
    if (!word.is_string() || word.get<std::string>().find('\0') != std::string::npos)
      return fail(Code::kInvalidArgument, "field 'argv': want strings without a NUL byte");
    out.argv.push_back(word.get<std::string>());
  }
  if (!out.argv.empty() && out.argv[0].empty())
    return fail(Code::kInvalidArgument, "field 'argv': want a program first");
  return out;
}

/// One that the caller may change; others' do not exist for the caller.
Result<const ledger::Job*> find_own_job(Controller& c, const std::string& name) {
  if (const ledger::Job* job = find_job(c.core, name)) {
    TH_RETURN_IF_ERROR(check_may_change(c.core, job->owner, "job '" + job->submitted.job + "'"));
    return job;
  }
  return fail(Code::kNotFound,
              "job or session '" + name + "' does not exist; th jobs lists the jobs that do");
}

/// What a WebSocket's handshake asks for (RFC 6455, 4.2). A page of another origin may not open one with the
/// cookie of whoever looks at it.
Result<http::Headers> check_upgrade(const http::Request& request) {
  if (request.header("Upgrade").value_or("") != "websocket" ||
      request.header("Sec-WebSocket-Version").value_or("") != "13")
    return fail(Code::kInvalidArgument, "this route wants a WebSocket: 'Upgrade: websocket' of version 13");
  const std::string key = request.header("Sec-WebSocket-Key").value_or("");
  if (key.empty() || key.size() > 100) return fail(Code::kInvalidArgument, "Sec-WebSocket-Key: want one");
  TH_RETURN_IF_ERROR(check_origin(request));
  return http::Headers{{"Upgrade", "websocket"}, {"Sec-WebSocket-Accept", http::socket_accept(key)}};
}

}  // namespace

void Api::add_exec_routes(http::Router& router) {
  write(router, "POST", "/api/v1/jobs/{id}/exec", kMember,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_TRY(const ledger::Job* job, find_own_job(c, request.params.at("id")));
          TH_TRY(const Execs::Asked asked, read_asked(body));
          TH_TRY(const std::string id, c.execs.open(*job, asked));
          const std::string node = job->ranks[static_cast<size_t>(asked.rank)].place.vm;
          return Answer(Json{{"id", id}, {"job", job->submitted.job}, {"rank", asked.rank}, {"node", node}});
        });
  add(router, "GET", "/api/v1/exec/{id}", kMember,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto run = [&]() -> Status {
          TH_RETURN_IF_ERROR(find_own_job(c, c.execs.job_of(request.params.at("id"))));
          TH_TRY(http::Headers upgrade, check_upgrade(request));
          return c.execs.join_client(request.params.at("id"), responder, std::move(upgrade));
        };
        if (Status done = run(); !done) responder.fail(done.error());
      });
  add(router, "GET", "/api/v1/node/{vm}/sessions/{id}", kAnyone,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto run = [&]() -> Status {
          TH_TRY(const std::string vm,
                 c.nodes.identify(request.params.at("vm"), request.bearer().value_or("")));
          if (request.header("Upgrade").value_or("") != node::kSessionProtocol)
            return fail(Code::kInvalidArgument,
                        std::string("this route wants 'Upgrade: ") + node::kSessionProtocol + "'");
          return c.execs.join_node(vm, request.params.at("id"), responder);
        };
        if (Status done = run(); !done) responder.fail(done.error());
      });
}

}  // namespace th::control
