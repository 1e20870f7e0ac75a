// th-sim: the digital twin. Everything it prints is simulated, in virtual time, and says so.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "command.h"

namespace th {
namespace {

constexpr int kFailed = 1;
constexpr int kBadInput = 2;

std::vector<std::unique_ptr<Command>> all_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(make_muri_command());
  commands.push_back(make_itp_command());
  commands.push_back(make_philly_command());
  commands.push_back(make_swf_command());
  commands.push_back(make_openb_command());
  commands.push_back(make_chaos_command());
  commands.push_back(make_llama3_command());
  commands.push_back(make_optimal_command());
  commands.push_back(make_place_command());
  commands.push_back(make_power_command());
  commands.push_back(make_serve_command());
  return commands;
}

/// The same object for people: a line a field; lists and objects as JSON.
void print(const Json& result) {
  size_t width = 0;
  for (const auto& [key, value] : result.items()) width = std::max(width, key.size());
  for (const auto& [key, value] : result.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : dump_json(value);
    fmt::print("{:<{}}  {}\n", key, width, text);
  }
}

int report(const Error& error, bool json) {
  if (json) fmt::print("{}\n", dump_json(error_json(error)));
  fmt::print(stderr, "th-sim: {}\n", error.message);
  return error.code == Code::kInvalidArgument || error.code == Code::kNotFound ? kBadInput : kFailed;
}

int main(int argc, char** argv) {
  ::setenv("TH_LOG", "error", 0);  // what the rehearsed programs warn of is of their simulated world
  init_log("th-sim");
  CLI::App app(
      "Rehearses a fleet in virtual time: traces, placement, faults. All that it tells is simulated.");
  app.require_subcommand(1);
  Common common;
  bool json = false;
  auto commands = all_commands();
  std::vector<CLI::App*> subcommands;
  for (const auto& command : commands) {
    CLI::App* sub = app.add_subcommand(command->name(), command->help());
    sub->footer(std::string("Example: ") + command->example());
    sub->add_option("--seed", common.seed, "what is random follows from it")->capture_default_str();
    sub->add_flag("--json", json, "one JSON object on one line, last on stdout");
    sub->add_option("--report", common.report, "also write one self-contained HTML page");
    Flags flags(*sub);
    command->add_flags(flags);
    subcommands.push_back(sub);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadInput;
  }
  for (size_t i = 0; i < commands.size(); ++i) {
    if (!subcommands[i]->parsed()) continue;
    bool failed = false;
    auto result = commands[i]->run(common, failed);
    if (!result) return report(result.error(), json);
    (*result)["simulated"] = true;
    if (json) {
      fmt::print("{}\n", dump_json(*result));
    } else {
      print(*result);
    }
    return failed ? kFailed : 0;
  }
  return kBadInput;
}

}  // namespace
}  // namespace th

int main(int argc, char** argv) { return th::main(argc, argv); }
