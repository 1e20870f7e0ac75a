// th, the command line: speaks REST with the controller and the gateway.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "context.h"

namespace th::cli {
namespace {

std::filesystem::path default_state() {
  if (const char* state = std::getenv("TH_STATE"); state != nullptr && *state != '\0') return state;
  if (::geteuid() == 0) return "/var/lib/thunderhead";
  if (const char* home = std::getenv("XDG_STATE_HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / "thunderhead";
  }
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "." : home) / ".local/state/thunderhead";
}

int exit_of(const Error& error) {
  if (error.code == Code::kUnavailable) return kUnreachable;
  if (error.code == Code::kCancelled) return kInterrupted;
  return kFailed;
}

int report(const Context& context, const Error& error, int status) {
  fmt::print(stderr, "th: {}\n", error.message);
  if (context.json) fmt::print("{}\n", dump_json(error_json(error)));
  return status;
}

void add_global_options(CLI::App& app, Context& context) {
  app.add_option("--state", context.state,
                 "state folder (default: TH_STATE, else /var/lib/thunderhead as root, else "
                 "~/.local/state/thunderhead)");
  app.add_option("--url", context.url_option,
                 "URL of the controller (default: TH_URL, else the state folder's)");
  app.add_option("--key", context.key_option, "key (default: TH_KEY, else the state folder's admin key)");
  app.add_option("--ca", context.authority_option,
                 "authority of the daemons' certificates, PEM (default: TH_CA, else the state folder's, else "
                 "the system's)")
      ->check(CLI::ExistingFile);
  app.add_flag("--json", context.json,
               "print one JSON object on one line, last; everything else goes to stderr");
  app.footer(
      "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 controller out of reach, 130 interrupted;\n"
      "a verb that waits for a job ends with the job's.");
}

Result<Json> run_verb(const Verb& verb, Context& context) {
  try {
    return verb(context);
  } catch (const std::exception& e) {
    return fail(Code::kInternal, fmt::format("a defect in th: {}", e.what()));
  }
}

int run(int argc, char** argv) {
  Context context;
  Verb verb;
  CLI::App app("th: ask for GPUs, train, serve, and learn why, when and for how much");
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "th 0.1.0");
  add_global_options(app, context);
  for (auto add : {add_up, add_fleet, add_slice, add_stack, add_queue, add_submit, add_launch, add_job,
                   add_exec, add_sbatch, add_slurm, add_slurm_power, add_deploy, add_model, add_data,
                   add_chat, add_key, add_access, add_demo})
    add(app, verb);

  // What follows "--" is a command to run, not ours to read.
  char** end = std::find(argv, argv + argc, std::string_view("--"));
  if (end != argv + argc) context.command.assign(end + 1, argv + argc);
  context.json = std::find(argv, end, std::string_view("--json")) != end;  // for errors of usage
  try {
    app.parse(static_cast<int>(end - argv), argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    std::string name = "th";
    for (const CLI::App* asked = &app; !asked->get_subcommands().empty();) {
      asked = asked->get_subcommands().front();
      name += " " + asked->get_name();
    }
    return report(context, {Code::kInvalidArgument, fmt::format("{}; see: {} --help", e.what(), name)},
                  kUsage);
  }
  if (context.state.empty()) context.state = default_state();
  context.state = std::filesystem::absolute(context.state).lexically_normal();
  auto answer = run_verb(verb, context);
  if (!answer) return report(context, answer.error(), exit_of(answer.error()));
  if (context.json) fmt::print("{}\n", dump_json(*answer));
  return context.exit_status;
}

}  // namespace
}  // namespace th::cli

int main(int argc, char** argv) {
  th::init_log("th");
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return th::cli::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "th: a defect in th: {}\n", e.what());
    return th::cli::kFailed;
  }
}
