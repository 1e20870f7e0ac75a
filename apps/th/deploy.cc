#include "deploy.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

std::string path_of(const std::string& name) { return "/deployments/" + http::percent_encode(name); }

Result<Json> list_models(Context& context) {
  TH_TRY(Json models, context.get("/models"));
  std::vector<std::vector<std::string>> rows = {{"MODEL", "VERSION", "SIZE", "JOB", "PATH"}};
  for (const Json& model : list_of(models)) {
    std::string version = text_of(model, "version");
    rows.push_back({text_of(model, "name"),
                    version.empty() ? std::to_string(int_of(model, "version")) : version,
                    format_bytes(int_of(model, "bytes")), text_of(model, "job"), text_of(model, "path")});
  }
  context.put(rows.size() == 1 ? "no models: a job with 'register' leaves one\n" : table(rows));
  return models;
}

Result<Json> list_deployments(Context& context) {
  TH_TRY(Json deployments, context.get("/deployments"));
  std::vector<std::vector<std::string>> rows = {{"DEPLOYMENT", "MODEL", "SLICE", "JOB", "STATE", "URL"}};
  for (const Json& deployment : list_of(deployments)) {
    rows.push_back({text_of(deployment, "name"), text_of(deployment, "model"), text_of(deployment, "slice"),
                    text_of(deployment, "job"), text_of(deployment, "state"), text_of(deployment, "url")});
  }
  context.put(rows.size() == 1 ? "no deployments\n" : table(rows));
  return deployments;
}

Result<Json> wait_ready(Context& context, const std::string& name) {
  CatchInterrupt catch_interrupt;
  LiveLine live;
  while (true) {
    TH_TRY(Json deployment, context.get(path_of(name)));
    std::string state = text_of(deployment, "state");
    if (state == "ready") return deployment;
    std::string job = text_of(deployment, "job");
    if (state != "starting") {
      return fail(Code::kFailedPrecondition,
                  fmt::format("deployment {} is {}: {}; see: th logs {}, th why {}", name, state,
                              text_of(deployment, "reason"), job, job));
    }
    std::string reason = text_of(deployment, "reason");
    live.show(
        fmt::format("deployment {} is starting as {}{}{}", name, job, reason.empty() ? "" : ": ", reason),
        state + reason);
    if (!pause_ms(100)) {
      live.clear();
      context.say(fmt::format("\nno longer watching; it comes up without you: th deployments"));
      context.exit_status = kInterrupted;
      return deployment;
    }
  }
}

Result<Json> undeploy(Context& context, const std::string& name) {
  TH_TRY(Json deployment, context.del(path_of(name)));
  context.say(fmt::format("deployment {} is taken down", name));
  return deployment;
}

}  // namespace

Result<Json> deploy_model(Context& context, const DeployOptions& options) {
  Json body{{"name", options.name.empty() ? options.model : options.name}, {"model", options.model}};
  if (!options.slice.empty()) body["slice"] = options.slice;
  if (options.gpus) body["gpus"] = *options.gpus;
  if (options.tokens_per_minute) body["tokens_per_minute"] = *options.tokens_per_minute;
  TH_TRY(Json deployment, context.post("/deployments", body));
  std::string name = text_of(body, "name");
  context.say(fmt::format("deployment {} of {} starts as {} on slice {}", name, options.model,
                          text_of(deployment, "job"), text_of(deployment, "slice")));
  if (options.detach) return deployment;
  TH_TRY(deployment, wait_ready(context, name));
  if (text_of(deployment, "state") == "ready") {
    context.say(
        fmt::format("deployment {} is ready: {}/openai/deployments/{}", name, context.gateway_url(), name));
  }
  return deployment;
}

void add_deploy(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<DeployOptions>();
  auto* models = app.add_subcommand("models", "List models of the registry");
  models->footer("Example:\n  th models");
  models->callback([&verb] { verb = list_models; });

  auto* deploy = app.add_subcommand("deploy", "Serve a model under a name, wait until it is ready");
  deploy->add_option("MODEL", options->model, "model of the registry")->required();
  deploy->add_option("--name", options->name, "name of the deployment (default: the model's)");
  deploy->add_option("--slice", options->slice,
                     "slice to run on (default: the one its model was trained in, while it is ready and has "
                     "GPUs free; else one is made)");
  deploy->add_option("--gpus", options->gpus, "GPUs for its replica, all of one node (default: 1)");
  deploy->add_option("--tokens-per-minute", options->tokens_per_minute, "token quota");
  deploy->add_flag("--detach", options->detach, "do not wait until it is ready");
  deploy->footer("Example:\n  th deploy llama-small --name demo-chat");
  deploy->callback(
      [&verb, options] { verb = [options](Context& context) { return deploy_model(context, *options); }; });

  auto* deployments = app.add_subcommand("deployments", "List deployments");
  deployments->footer("Example:\n  th deployments");
  deployments->callback([&verb] { verb = list_deployments; });

  auto* down = app.add_subcommand("undeploy", "Take a deployment down");
  down->add_option("NAME", options->name, "deployment")->required();
  down->footer("Example:\n  th undeploy demo-chat");
  down->callback(
      [&verb, options] { verb = [options](Context& context) { return undeploy(context, options->name); }; });
}

}  // namespace th::cli
