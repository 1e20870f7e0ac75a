#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/units.h"
#include "context.h"
#include "http/url.h"
#include "terminal.h"
#include "usage.h"

namespace th::cli {
namespace {

Result<Json> show_fleet(Context& context) {
  TH_TRY(Json fleet, context.get("/fleet"));
  int64_t gpus = 0, used = 0, hosts = 0;
  std::string text;
  for (const Json& rack : list_of(fleet, "racks")) {
    int64_t budget_w = int_of(rack, "power_budget_w"), used_w = int_of(rack, "power_used_w");
    text += fmt::format("rack {}  leaf {}  power {} {} of {} W\n", text_of(rack, "id"), text_of(rack, "leaf"),
                        bar(double(used_w), double(budget_w), 20), used_w, budget_w);
    std::vector<std::vector<std::string>> rows;
    for (const Json& host : list_of(rack, "hosts")) {
      int64_t host_gpus = int_of(host, "gpus"), host_used = int_of(host, "gpus_used");
      gpus += host_gpus;
      used += host_used;
      ++hosts;
      rows.push_back({"  " + text_of(host, "id"), text_of(host, "series"),
                      bar(double(host_used), double(host_gpus), int(std::min<int64_t>(host_gpus, 16))),
                      fmt::format("{} of {} GPUs", host_used, host_gpus), text_of(host, "state"),
                      text_of(host, "reason")});
    }
    text += table(rows);
  }
  context.say(fmt::format("fleet {}: {} of {} GPUs in use on {} hosts in {} racks", text_of(fleet, "name"),
                          used, gpus, hosts, list_of(fleet, "racks").size()));
  context.put(text);
  return fleet;
}

Result<Json> list_nodes(Context& context) {
  TH_TRY(Json nodes, context.get("/nodes"));
  std::vector<std::vector<std::string>> rows = {
      {"NODE", "HOST", "RACK", "LEAF", "SLICE", "GPUS", "STATE", "REASON"}};
  for (const Json& node : list_of(nodes)) {
    rows.push_back({text_of(node, "name"), text_of(node, "host"), text_of(node, "rack"),
                    text_of(node, "leaf"), text_of(node, "slice"), std::to_string(int_of(node, "gpus")),
                    text_of(node, "state"), text_of(node, "reason")});
  }
  context.put(rows.size() == 1 ? "no nodes: a slice brings them\n" : table(rows));
  return nodes;
}

struct PowerOptions {
  std::string name, site, start = "0s", duration, reason;
  int64_t watts = 0;
};

Result<Json> cap_power(Context& context, const PowerOptions& options) {
  TH_TRY(const int64_t in_ns, parse_duration_ns(options.start));
  TH_TRY(const int64_t duration_ns, parse_duration_ns(options.duration));
  Json body{{"name", options.name}, {"watts", options.watts}, {"duration_ns", duration_ns}};
  if (in_ns > 0) body["start_ns"] = Env::real().unix_ns() + in_ns;
  if (!options.site.empty()) body["site"] = options.site;
  if (!options.reason.empty()) body["reason"] = options.reason;
  TH_TRY(Json made, context.post("/power-caps", body));
  context.say(fmt::format("site {} takes on nothing over {} W from {} to {}; what runs goes on",
                          text_of(made, "site"), options.watts, format_time(int_of(made, "start_ns")),
                          format_time(int_of(made, "end_ns"))));
  return made;
}

Result<Json> list_power_caps(Context& context) {
  TH_TRY(Json all, context.get("/power-caps"));
  std::vector<std::vector<std::string>> rows = {{"CAP", "SITE", "WATTS", "START", "END", "REASON"}};
  for (const Json& item : list_of(all)) {
    rows.push_back({text_of(item, "name"), text_of(item, "site"), std::to_string(int_of(item, "watts")),
                    format_time(int_of(item, "start_ns")), format_time(int_of(item, "end_ns")),
                    text_of(item, "reason")});
  }
  context.put(rows.size() == 1 ? "no power caps\n" : table(rows));
  return all;
}

void add_power(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<PowerOptions>();
  auto* power = app.add_subcommand("power", "Cap what a site may draw for a while");
  power->require_subcommand(1);
  power->footer("Example:\n  th power cap heat --watts 200 --for 2h --reason \"a chiller is repaired\"");
  auto* cap = power->add_subcommand("cap", "Start nothing that would draw more; what runs goes on");
  cap->add_option("NAME", options->name, "name of the cap")->required();
  cap->add_option("--watts", options->watts, "of all hosts of the site together")->required();
  cap->add_option("--site", options->site, "site (default: the only one)");
  cap->add_option("--in", options->start, "starts so long from now (default: now)");
  cap->add_option("--for", options->duration, "how long")->required();
  cap->add_option("--reason", options->reason, "why, for those who ask");
  cap->callback(
      [&verb, options] { verb = [options](Context& context) { return cap_power(context, *options); }; });
  power->add_subcommand("list", "List power caps")->callback([&verb] { verb = list_power_caps; });
  auto* lift = power->add_subcommand("lift", "End a cap");
  lift->add_option("NAME", options->name, "name of the cap")->required();
  lift->callback([&verb, options] {
    verb = [options](Context& context) -> Result<Json> {
      TH_TRY(Json gone, context.del("/power-caps/" + http::percent_encode(options->name)));
      context.say(fmt::format("power cap {} is lifted", options->name));
      return gone;
    };
  });
}

void add_nodes(CLI::App& app, Verb& verb) {
  struct Options {
    std::string host, reason;
  };
  auto options = std::make_shared<Options>();
  auto* nodes = app.add_subcommand("nodes", "List nodes; take hosts out of use and back");
  nodes->footer(
      "Examples:\n  th nodes list\n  th nodes drain r1h1 --reason \"a fan is loud\"\n  th nodes resume r1h1");
  nodes->require_subcommand(0, 1);
  nodes->preparse_callback([&verb](size_t) { verb = list_nodes; });  // "th nodes" alone lists

  nodes->add_subcommand("list", "List the nodes that exist")->callback([&verb] { verb = list_nodes; });
  auto* drain = nodes->add_subcommand("drain", "Take a host out of use; what runs there ends first");
  drain->add_option("HOST", options->host, "host")->required();
  drain->add_option("--reason", options->reason, "why, for those who ask")->required();
  drain->callback([&verb, options] {
    verb = [options](Context& context) -> Result<Json> {
      TH_TRY(Json host, context.post("/hosts/" + http::percent_encode(options->host) + "/drain",
                                     {{"reason", options->reason}}));
      context.say(fmt::format("{} is drained: {}", options->host, options->reason));
      return host;
    };
  });
  auto* resume = nodes->add_subcommand("resume", "Put a drained host back into use");
  resume->add_option("HOST", options->host, "host")->required();
  resume->callback([&verb, options] {
    verb = [options](Context& context) -> Result<Json> {
      TH_TRY(Json host,
             context.post("/hosts/" + http::percent_encode(options->host) + "/resume", Json::object()));
      context.say(fmt::format("{} is back in use", options->host));
      return host;
    };
  });
}

}  // namespace

Result<Json> show_usage(Context& context) {
  TH_TRY(Json usage, context.get("/usage"));
  std::vector<std::vector<std::string>> rows = {{"SLICE", "SERIES", "GPUS", "GPU-SECONDS", "COST"}};
  for (const Json& item : list_of(usage)) {
    rows.push_back({text_of(item, "slice"), text_of(item, "series"), std::to_string(int_of(item, "gpus")),
                    fmt::format("{:.3f}", double(int_of(item, "gpu_ns")) / kSecond),
                    format_money(int_of(item, "microusd"))});
  }
  rows.push_back({"total", "", "", fmt::format("{:.3f}", double_of(usage, "gpu_seconds")),
                  format_money(int_of(usage, "microusd"))});
  context.put(table(rows));
  if (list_of(usage, "tokens").empty()) return usage;
  rows = {{"DEPLOYMENT", "KEY", "REQUESTS", "PROMPT TOKENS", "COMPLETION TOKENS"}};
  for (const Json& item : list_of(usage, "tokens")) {
    rows.push_back({text_of(item, "deployment"), text_of(item, "key"),
                    std::to_string(int_of(item, "requests")), std::to_string(int_of(item, "prompt_tokens")),
                    std::to_string(int_of(item, "completion_tokens"))});
  }
  context.put("\n" + table(rows));
  return usage;
}

void add_fleet(CLI::App& app, Verb& verb) {
  auto* fleet = app.add_subcommand("fleet", "Show racks with their power, hosts and GPUs");
  fleet->footer("Example:\n  th fleet");
  fleet->callback([&verb] { verb = show_fleet; });
  auto* usage = app.add_subcommand("usage", "Show GPU-seconds, money and tokens");
  usage->footer("Example:\n  th usage --json");
  usage->callback([&verb] { verb = show_usage; });
  add_nodes(app, verb);
  add_power(app, verb);
}

}  // namespace th::cli
