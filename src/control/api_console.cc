// Routes that the console needs beside those of everyone: its files, recipes as text, how busy deployments
// are, usage by the hour.

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"
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

constexpr int64_t kInferenceKeyNs = kHour;

/// Of the recipes that the console begins with, whose texts are named relative to them: in the tree that the
/// controller was built in. Empty where there is none.
std::string recipes_folder() {
  std::error_code ec;
  const auto folder = program_folder() / "../../recipes/train";
  return std::filesystem::is_directory(folder, ec) ? folder.lexically_normal().string() : "";
}

bool sees(const Controller& c, const ledger::Owner& owner) {
  return is_within(c.core.policy(), account_of(owner), c.core.caller().account);
}

/// What was metered, and what has run since.
ledger::UsageHours hours_since(const Controller& c, int64_t since_ns) {
  const ledger::State& state = c.core.state();
  ledger::UsageHours out(state.hours.lower_bound({since_ns, ""}), state.hours.end());
  for (const std::string& id : c.core.active_slices()) {
    if (const auto slice = state.slices.find(id); slice != state.slices.end())
      ledger::add_run(out, slice->second, c.core.now_ns());
  }
  out.erase(out.begin(), out.lower_bound({since_ns, ""}));
  return out;
}

Result<Json> usage_hours(Controller& c, const http::Request& request) {
  TH_TRY(int64_t since_ns, query_int(request, "since_ns", 0));
  since_ns = std::max(since_ns, c.core.now_ns() - ledger::kUsageHoursKeptNs);
  ByName<Json> items;
  for (const auto& [key, hour] : hours_since(c, since_ns - since_ns % kHour)) {
    const auto& [start_ns, account] = key;
    if (!is_within(c.core.policy(), account, c.core.caller().account)) continue;
    items[std::to_string(start_ns) + " " + account] = {
        {"start_ns", start_ns},
        {"account", account},
        {"gpu_seconds", static_cast<double>(hour.gpu_ns) / kSecond},
        {"microusd", hour.microusd()},
        {"requests", hour.requests},
        {"prompt_tokens", hour.prompt_tokens},
        {"completion_tokens", hour.completion_tokens}};
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
          TH_TRY(const request::JobSpec spec, request::parse_job_recipe(yaml, "recipe", recipes_folder()));
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
