// Routes that the console needs beside those of everyone: its files, recipes as text, how busy deployments
// are, usage by the hour.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/console.h"
#include "control/serving_load.h"
#include "control/tenants.h"
#include "control/views.h"
#include "request/job_spec.h"

namespace th::control {
namespace {

constexpr int64_t kInferenceKeyNs = kHour, kMaxHoursNs = 92 * kDay;

bool sees(const Controller& c, const ledger::Owner& owner) {
  return is_within(c.core.policy(), account_of(owner), c.core.caller().account);
}

struct Hour {
  double gpu_s = 0, microusd = 0;
};
using Hours = std::map<std::pair<int64_t, std::string>, Hour>;  // by (start since 1970, account)

/// What the slice ran, spread evenly over its time up to now.
void spread(const Controller& c, const ledger::Slice& slice, int64_t since_ns, Hours& hours) {
  const int64_t now_ns = c.core.now_ns(), start_ns = slice.ready_ns;
  const int64_t last_ns = slice.ended_ns != 0 ? slice.ended_ns : now_ns;
  const int64_t end_ns = std::min(last_ns, slice.terms.end_ns);
  if (start_ns == 0 || end_ns <= std::max(start_ns, since_ns)) return;
  const double gpu_s = static_cast<double>(slice.gpu_ns_at(now_ns)) / kSecond;
  const auto microusd = static_cast<double>(slice.cost_microusd_at(now_ns));
  const auto whole_ns = static_cast<double>(end_ns - start_ns);
  for (int64_t at_ns = std::max(start_ns, since_ns); at_ns < end_ns;) {
    const int64_t hour_ns = at_ns - at_ns % kHour, next_ns = std::min(end_ns, hour_ns + kHour);
    const double share = static_cast<double>(next_ns - at_ns) / whole_ns;
    Hour& hour = hours[{hour_ns, account_of(slice.owner)}];
    hour.gpu_s += share * gpu_s, hour.microusd += share * microusd;
    at_ns = next_ns;
  }
}

Result<Json> usage_hours(Controller& c, const http::Request& request) {
  TH_TRY(int64_t since_ns, query_int(request, "since_ns", 0));
  since_ns = std::max(since_ns, c.core.now_ns() - kMaxHoursNs);
  Hours hours;
  for (const auto& [id, slice] : c.core.state().slices) {
    if (sees(c, slice.owner)) spread(c, slice, since_ns, hours);
  }
  ByName<Json> items;
  for (const auto& [key, hour] : hours) {
    items[std::to_string(key.first) + " " + key.second] = {
        {"start_ns", key.first},
        {"account", key.second},
        {"gpu_seconds", hour.gpu_s},
        {"microusd", static_cast<int64_t>(hour.microusd + 0.5)}};
  }
  return list_json(request, items, [](const std::string&, const Json& item) { return item; });
}

/// A key for inference alone, which ends with the session that asked for it, or within an hour.
Result<Answer> inference_key(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {}));
  const Caller& who = c.core.who();
  Access::NewKey key;
  key.name = "playground-" + std::to_string(c.core.state().next_key);
  key.tenant = who.owner.account, key.role = ledger::Role::kMember;
  key.scopes = {ledger::kScopeInference}, key.user = who.user, key.parent = who.key;
  key.expires_ns = c.core.now_ns() + kInferenceKeyNs;
  const Access::Secret made = c.access.make_key(key);
  Json answer = {{"id", made.id}, {"key", nullptr}, {"expires_ns", key.expires_ns}};
  const std::string stored = dump_json(answer);
  answer["key"] = made.secret;
  return Answer(answer, stored);
}

}  // namespace

void Api::add_console_routes(http::Router& router) {
  add(router, "GET", "/", kAnyone,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        responder.send(console_page(request, gateway_url_of(c.core.state_dir())));
      });
  // Not by way of the loop: they are the same for everyone, and the page is there while the loop is busy.
  router.add("GET", "/console/{path...}", [](const http::Request& request, const http::Responder& responder) {
    responder.send(console_file(request));
  });
  // Asking changes nothing, so it is no command and leaves no answer behind.
  add(router, "POST", "/api/v1/recipes/check", kViewer,
      [](Controller&, const http::Request& request, const http::Responder& responder) {
        auto checked = [&]() -> Result<Json> {
          if (request.body.size() > kMaxBodyBytes)
            return fail(Code::kInvalidArgument, "body: at most 1 MiB is taken");
          TH_TRY(const Json body, parse_json(request.body, "body"));
          TH_RETURN_IF_ERROR(check_fields(body, {"yaml"}));
          TH_TRY(const std::string yaml, get_string(body, "yaml"));
          TH_TRY(const request::JobSpec spec, request::parse_job_recipe(yaml, "recipe", ""));
          return Json{{"job", request::to_json(spec)}};
        }();
        checked ? responder.send(*checked) : responder.fail(checked.error());
      });
  add(router, "GET", "/api/v1/deployments/{name}/load", kViewer,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        const std::string& name = request.params.at("name");
        const auto found = c.core.state().deployments.find(name);
        if (found == c.core.state().deployments.end() ||
            !sees(c, c.core.state().jobs.at(found->second.created.job).owner))
          return responder.fail({Code::kNotFound, "deployment '" + name + "' does not exist"});
        Json out = {{"name", name}, {"recent", serving_load_->recent(name, c.core.now_ns())}};
        const bool is_ready = found->second.state == "ready";
        c.core.offload([responder, out, url = is_ready ? found->second.url : ""]() -> std::function<void()> {
          const Result<Json> replica = url.empty() ? Json(nullptr) : ask_replica(url);
          Json whole = out;
          whole["replica"] = replica ? *replica : Json(nullptr);
          return [responder, whole] { responder.send(whole); };
        });
      });
  read(router, "/api/v1/usage/hours", usage_hours);
  write(router, "POST", "/api/v1/session/inference-key", kMember,
        [](Controller& c, const http::Request&, const Json& body) { return inference_key(c, body); });
}

}  // namespace th::control
