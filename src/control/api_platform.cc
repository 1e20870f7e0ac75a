// Routes of the fleet, stacks, data sets, slices, nodes' hosts and the daemon itself.

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/api_signin.h"
#include "control/data_sets.h"
#include "control/stacks.h"
#include "control/views.h"
#include "control/visible.h"

namespace th::control {
namespace {

constexpr int64_t kQuoteNs = 20 * kSecond;

Result<const ledger::Slice*> find_slice(Controller& c, const http::Request& request) {
  const std::string& name = request.params.at("name");
  if (const ledger::Slice* slice = find_slice(c.core, name)) return slice;
  return fail(Code::kNotFound, "slice '" + name + "' does not exist; th slice list shows those that do");
}

/// That the caller may change. Returns its id.
Result<std::string> own_slice(Controller& c, const http::Request& request) {
  TH_TRY(const ledger::Slice* slice, find_slice(c, request));
  TH_RETURN_IF_ERROR(check_may_change(c.core, slice->owner, "slice '" + slice->terms.name + "'"));
  return slice->terms.slice;
}

/// Done once the data set is in the registry and the ledger knows it.
Status import_data_set(Controller& c, const Json& body, const std::function<void(Result<Answer>)>& done) {
  TH_TRY(const Import asked, read_import(body, "data set"));
  return c.data_sets.import(asked.name, asked.path, [done](const Result<ledger::DataSetAdded>& set) {
    done(set ? Result<Answer>(Answer(data_set_json(*set))) : fail(set.error()));
  });
}

/// The offer, and what the cloud says to it; whether it can be had is only known when it is made.
void send_with_quote(Controller& c, const http::Responder& responder, const Json& offer,
                     const cloud::QuoteVms& asked) {
  c.core.offload([&c, responder, offer, asked]() -> std::function<void()> {
    const auto quote = c.core.provider().quote(asked, kQuoteNs);
    Json out = offer;
    out["cloud"] = quote
                       ? Json{{"microusd_per_vm_hour", quote->microusd_per_vm_hour}, {"where", quote->where}}
                       : Json{{"code", code_name(quote.error().code)}, {"reason", quote.error().message}};
    return [responder, out] { responder.send(out); };
  });
}

}  // namespace

void Api::add_fleet_routes(http::Router& router) {
  read(
      router, "/health",
      [](Controller& c, const http::Request&) -> Result<Json> {
        return Json{{"status", "ok"}, {"version", kVersion}, {"simulated", c.core.is_simulated()}};
      },
      kAnyone);
  add(router, "GET", "/metrics", kAnyone,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        // Names are for the platform alone.
        Caller caller;
        const bool all = identify(c, kPlatformViewer, request, "", caller).has_value();
        responder.send(
            http::Response{200, {{"Content-Type", "text/plain; version=0.0.4"}}, prometheus_text(c, all)});
      });
  read(router, "/api/v1/fleet",
       [](Controller& c, const http::Request&) -> Result<Json> { return fleet_json(c); });
  read(router, "/api/v1/nodes", [](Controller& c, const http::Request& request) {
    return list_json(request, c.core.state().vms, [&c](const std::string&, const ledger::Vm& vm) {
      return vm.state == ledger::VmState::kDeleted || !sees(c.core, vm) ? Json() : node_json(c, vm);
    });
  });
  write(router, "POST", "/api/v1/hosts/{host}/drain", kPlatformOperator,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {"reason"}));
          TH_TRY(const std::string reason, get_string(body, "reason", std::string("drained by hand")));
          const std::string& host = request.params.at("host");
          TH_RETURN_IF_ERROR(c.core.fleet().find_host(host));
          c.core.stage(ledger::HostDrained{host, reason});
          return Answer(Json{{"host", host}, {"state", "drained"}, {"reason", reason}});
        });
  write(router, "POST", "/api/v1/hosts/{host}/resume", kPlatformOperator,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {}));
          const std::string& host = request.params.at("host");
          TH_RETURN_IF_ERROR(c.core.fleet().find_host(host));
          if (c.core.state().drained.count(host)) c.core.stage(ledger::HostResumed{host});
          return Answer(Json{{"host", host}, {"state", "in use"}});
        });
  write(router, "POST", "/api/v1/shutdown", kPlatformAdmin,
        [this](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {"nodes"}));
          TH_TRY(const bool nodes, get_bool(body, "nodes", false));
          c.core.after_commit([this, nodes] { on_shutdown(nodes); });
          return Answer(Json{{"stopping", true}, {"nodes", nodes}});
        });
}

void Api::add_stack_routes(http::Router& router) {
  read(router, "/api/v1/stacks", [](Controller& c, const http::Request& request) {
    ByName<registry::Stack> stacks;
    for (const registry::Stack& stack : all_stacks(c.core.state())) stacks.emplace(stack.id(), stack);
    return list_json(request, stacks,
                     [](const std::string&, const registry::Stack& stack) { return stack_json(stack); });
  });
  read(router, "/api/v1/stacks/{name}", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const registry::Stack stack, find_stack(c.core.state(), request.params.at("name")));
    return stack_json(stack);
  });
  // Its command runs on every node of a slice that names it.
  write(router, "POST", "/api/v1/stacks", kPlatformOperator,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {"yaml"}));
          TH_TRY(const std::string yaml, get_string(body, "yaml"));
          TH_TRY(const registry::Stack stack, add_stack(c.core, yaml));
          return Answer(stack_json(stack));
        });
}

void Api::add_data_routes(http::Router& router) {
  read(router, "/api/v1/data", [](Controller& c, const http::Request& request) {
    ByName<const ledger::DataSetAdded*> sets;
    for (const auto& [name, versions] : c.core.state().data_sets) {
      for (const auto& set : versions) sets.emplace(name + "@" + set.version, &set);
    }
    return list_json(request, sets,
                     [](const std::string&, const ledger::DataSetAdded* set) { return data_set_json(*set); });
  });
  read(router, "/api/v1/data/{name}", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::DataSetAdded* set, find_data_set(c.core.state(), request.params.at("name")));
    return data_set_json(*set);
  });
  write_late(router, "POST", "/api/v1/data", kPlatformOperator,
             [](Controller& c, const http::Request&, const Json& body, const Done& done) {
               if (Status begun = import_data_set(c, body, done); !begun) done(fail(begun.error()));
             });
}

void Api::add_slice_routes(http::Router& router) {
  // Asking changes nothing, so it is no command and leaves no answer behind.
  add(router, "POST", "/api/v1/offers", kViewer,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        if (request.body.size() > kMaxBodyBytes)
          return responder.fail({Code::kInvalidArgument, "body: at most 1 MiB is taken"}, 413);
        auto made = [&]() -> Status {
          TH_TRY(const Json body, parse_json(request.body, "body"));
          TH_TRY(const request::SliceSpec spec, request::slice_spec_from_json(body));
          TH_TRY(const Offer offer, c.slices.offer(spec, c.jobs.reservations()));
          if (c.core.provider().kind() == "local") {
            send(c, responder, offer_json(c, offer));
          } else {
            send_with_quote(c, responder, redacted(c.core, offer_json(c, offer)),
                            {offer.series, static_cast<int64_t>(offer.plan.hosts.size()), spec.spot,
                             spec.zones.empty() ? "" : spec.zones[0]});
          }
          return {};
        }();
        if (!made) send(c, responder, fail(made.error()));
      });
  write(router, "POST", "/api/v1/slices", kMember,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_TRY(const request::SliceSpec spec, request::slice_spec_from_json(body));
          TH_TRY(const std::string id, c.slices.hold(spec, c.jobs.reservations()));
          return Answer(slice_json(c, c.core.state().slices.at(id)));
        });
  write(router, "POST", "/api/v1/slices/{name}/commit", kMember,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {}));
          TH_TRY(const std::string id, own_slice(c, request));
          TH_RETURN_IF_ERROR(c.slices.commit(request.params.at("name")));
          return Answer(slice_json(c, c.core.state().slices.at(id)));
        });
  write(router, "DELETE", "/api/v1/slices/{name}", kMember,
        [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
          TH_TRY(const std::string id, own_slice(c, request));
          TH_RETURN_IF_ERROR(c.slices.release(id, "released by hand"));
          return Answer(slice_json(c, c.core.state().slices.at(id)));
        });
  write(router, "POST", "/api/v1/slices/{name}/resize", kMember,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(check_fields(body, {"gpus"}));
          TH_TRY(const int64_t gpus, get_int(body, "gpus"));
          TH_TRY(const std::string id, own_slice(c, request));
          TH_RETURN_IF_ERROR(c.slices.resize(request.params.at("name"), gpus, c.jobs.reservations()));
          return Answer(slice_json(c, c.core.state().slices.at(id)));
        });
  read(router, "/api/v1/slices", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const std::optional<bool> ended, wants_ended(request));
    return list_json(request, c.core.state().slices, [&](const std::string&, const ledger::Slice& slice) {
      const bool asked = !ended || *ended != slice.live();
      return asked && sees(c.core, slice.owner) ? slice_json(c, slice) : Json();
    });
  });
  read(router, "/api/v1/slices/{name}", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::Slice* slice, find_slice(c, request));
    return slice_json(c, *slice);
  });
  read(router, "/api/v1/why/{subject}",
       [](Controller& c, const http::Request& request) { return why_json(c, request.params.at("subject")); });
  read(router, "/api/v1/usage",
       [](Controller& c, const http::Request&) -> Result<Json> { return usage_json(c); });
}

}  // namespace th::control
