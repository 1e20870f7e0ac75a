#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/units.h"
#include "job.h"
#include "process.h"

namespace th::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxRecipeBytes = size_t{1} << 20;

Result<request::JobSpec> spec_of_recipe(const SubmitOptions& options) {
  fs::path file = options.recipe;
  auto text = read_file(file, kMaxRecipeBytes);
  if (!text) return fail_with("recipe " + options.recipe, text.error());
  return request::parse_job_recipe(*text, options.recipe,
                                   fs::absolute(file).parent_path().lexically_normal());
}

request::JobSpec spec_of_command(const Context& context) {
  request::JobSpec spec;
  spec.command = context.command;
  spec.name = fs::path(context.command.front()).filename();
  std::error_code ignored;
  spec.workdir = fs::current_path(ignored);
  return spec;
}

}  // namespace

Status apply_options(const SubmitOptions& options, request::JobSpec& spec) {
  if (!options.slice.empty()) spec.slice = options.slice;
  if (!options.name.empty()) spec.name = options.name;
  if (options.gpus) spec.gpus = *options.gpus;
  if (options.retries) spec.retries = *options.retries;
  if (!options.workdir.empty()) spec.workdir = fs::absolute(options.workdir).lexically_normal();
  if (!options.time.empty()) {
    TH_TRY(spec.duration_ns, parse_duration_ns(options.time));
  }
  if (!options.stack.empty()) spec.stack = options.stack;
  if (!options.memory.empty()) {
    TH_TRY(spec.memory_bytes, parse_bytes(options.memory));
  }
  for (const auto& assignment : options.env) {
    size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(Code::kInvalidArgument, fmt::format("--env '{}': want NAME=VALUE", assignment));
    }
    spec.env[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  return request::validate(spec);
}

namespace {

Status check_stage(const request::JobSpec& spec, const std::string& recipe) {
  for (const auto& [to, from] : spec.stage) {
    std::error_code ec;
    if (!fs::exists(from, ec)) {
      return fail(Code::kNotFound, fmt::format("{}: stage: {} is to be copied from {}, which does not exist",
                                               recipe, to, from));
    }
  }
  return {};
}

/// The engine reads its own section; better now than after the gang has started.
Status check_train(const request::JobSpec& spec, const std::string& recipe) {
  if (spec.command.front() != "th-train" || !spec.files.contains("recipe.yaml")) return {};
  TH_TRY(fs::path program, program_beside("th-train"));
  TH_TRY(Finished check, run_and_wait({program, "check", recipe}));
  if (check.exit_status == 0) return {};
  while (check.output.ends_with('\n')) check.output.pop_back();
  return fail(Code::kInvalidArgument,
              check.output.empty() ? recipe + ": th-train check refuses it" : check.output);
}

}  // namespace

Result<request::JobSpec> spec_of(const Context& context, const SubmitOptions& options) {
  if (options.recipe.empty() == context.command.empty()) {
    return fail(Code::kInvalidArgument, "submit wants either a recipe file or a command after '--'");
  }
  if (!context.command.empty()) {
    request::JobSpec spec = spec_of_command(context);
    TH_RETURN_IF_ERROR(apply_options(options, spec));
    return spec;
  }
  TH_TRY(request::JobSpec spec, spec_of_recipe(options));
  TH_RETURN_IF_ERROR(apply_options(options, spec));
  TH_RETURN_IF_ERROR(check_stage(spec, options.recipe));
  TH_RETURN_IF_ERROR(check_train(spec, options.recipe));
  return spec;
}

Result<Json> submit_job(Context& context, const SubmitOptions& options) {
  TH_TRY(request::JobSpec spec, spec_of(context, options));
  return submit_spec(context, spec, options);
}

Result<Json> submit_spec(Context& context, const request::JobSpec& spec, const SubmitOptions& options) {
  TH_TRY(Json job, context.post("/jobs", request::to_json(spec)));
  std::string id = text_of(job, "id");
  context.say(fmt::format("{} submitted: {}, {} GPUs{}", id, spec.name, spec.gpus,
                          spec.slice ? " on slice " + *spec.slice : std::string()));
  if (options.detach) return job;
  bool follow = options.follow || (!options.wait && ::isatty(STDOUT_FILENO) != 0);
  bool tells_progress = !spec.files.empty();
  return watch_job(context, id, follow && !tells_progress);
}

void add_submit_options(CLI::App& app, SubmitOptions& options) {
  app.add_option("--slice", options.slice,
                 "slice to run on (default: one is made for the job, and released with it)");
  app.add_option("--name", options.name, "name of the job");
  app.add_option("--retries", options.retries, "restarts after a fault (default: the recipe's, else 2)");
  app.add_option("--time", options.time, "time limit: 90s, 1h30m");
  app.add_option("--memory", options.memory, "memory limit of a rank: 3GiB");
  app.add_option("--workdir", options.workdir,
                 "folder to start in (default: for a command where you are, for a recipe the job's own)");
  app.add_option("--stack", options.stack, "software of the slice that is made for it, see: th stack list");
  app.add_option("--env", options.env, "NAME=VALUE for its ranks, may be repeated")->take_all();
  auto* follow =
      app.add_flag("--follow", options.follow, "watch it, with its output (default on a terminal)");
  auto* wait = app.add_flag("--wait", options.wait, "wait for its end (default elsewhere)");
  auto* detach = app.add_flag("--detach", options.detach, "return as soon as it is queued");
  follow->excludes(wait)->excludes(detach);
  wait->excludes(detach);
}

void add_submit(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<SubmitOptions>();
  auto* submit = app.add_subcommand("submit", "Submit a job: a recipe, or any command after '--'");
  submit->add_option("RECIPE", options->recipe, "recipe file");
  submit->add_option("--gpus", options->gpus, "GPUs: one rank on each (default: the recipe's, else 1)");
  add_submit_options(*submit, *options);
  submit->footer(
      "Examples:\n  th submit --slice demo recipes/train/llama-small.yaml\n"
      "  th submit --gpus 2 -- python3 train.py --lr 3e-4");
  submit->callback(
      [&verb, options] { verb = [options](Context& context) { return submit_job(context, *options); }; });
}

}  // namespace th::cli
