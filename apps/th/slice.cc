#include "slice.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "http/url.h"
#include "request/job_options.h"
#include "request/slice_spec.h"
#include "terminal.h"

namespace th::cli {
namespace {

std::string path_of(const std::string& name) { return "/slices/" + http::percent_encode(name); }

/// "r1h1 (r1, leaf1), r1h2 (r1, leaf1)".
std::string hosts_line(const Json& hosts) {
  std::vector<std::string> parts;
  for (const Json& host : hosts) {
    parts.push_back(
        fmt::format("{} ({}, {})", text_of(host, "host"), text_of(host, "rack"), text_of(host, "leaf")));
  }
  return join(parts, ", ");
}

void print_offer(const Context& context, const Json& offer) {
  int64_t start_ns = int_of(offer, "start_ns"), end_ns = int_of(offer, "end_ns");
  int64_t wait_ns = start_ns - Env::real().unix_ns();
  std::string start = wait_ns > kSecond ? fmt::format("{}, in {}", format_time(start_ns),
                                                      format_duration(wait_ns / kSecond * kSecond))
                                        : "now";
  context.say(fmt::format("offer   {} GPUs of {} for {}", int_of(offer, "gpus"), text_of(offer, "series"),
                          format_duration(end_ns - start_ns)));
  context.say(fmt::format("price   {} ({} a GPU-hour)", format_money(int_of(offer, "price_microusd")),
                          format_money(int_of(offer, "microusd_per_gpu_hour"))));
  context.say(fmt::format("start   {}", start));
  context.say(fmt::format("hosts   {}", hosts_line(list_of(offer, "hosts"))));
  context.say(fmt::format("why     {}", text_of(offer, "placement")));
  if (const Json cloud = object_of(offer, "cloud"); !text_of(cloud, "reason").empty()) {
    context.say(fmt::format("cloud   {}", text_of(cloud, "reason")));
  } else if (int_of(cloud, "microusd_per_vm_hour") > 0) {
    context.say(fmt::format("cloud   {} a VM-hour, {}", format_money(int_of(cloud, "microusd_per_vm_hour")),
                            text_of(cloud, "where")));
  }
  if (auto reason = text_of(object_of(offer, "reason"), "text"); !reason.empty()) {
    context.say(fmt::format("waits   {}", reason));
  }
  if (auto sooner = text_of(offer, "sooner"); !sooner.empty()) context.say(fmt::format("sooner  {}", sooner));
  if (auto cheaper = text_of(offer, "cheaper"); !cheaper.empty())
    context.say(fmt::format("cheaper {}", cheaper));
}

/// "2 nodes: 1 booting, 1 ready".
std::string nodes_line(const Json& slice) {
  std::vector<std::pair<std::string, int>> counts;
  for (const Json& node : list_of(slice, "nodes")) {
    std::string state = text_of(node, "state");
    auto it = std::find_if(counts.begin(), counts.end(), [&](auto& entry) { return entry.first == state; });
    if (it == counts.end()) {
      counts.emplace_back(state, 1);
    } else {
      ++it->second;
    }
  }
  std::vector<std::string> parts;
  for (const auto& [state, count] : counts) parts.push_back(fmt::format("{} {}", count, state));
  return fmt::format("{} nodes: {}", list_of(slice, "nodes").size(), join(parts, ", "));
}

void print_nodes(const Context& context, const Json& slice) {
  if (list_of(slice, "nodes").empty()) return;
  std::vector<std::vector<std::string>> rows = {{"NODE", "HOST", "RACK", "LEAF", "GPUS", "STATE", "REASON"}};
  for (const Json& node : list_of(slice, "nodes")) {
    rows.push_back({text_of(node, "name"), text_of(node, "host"), text_of(node, "rack"),
                    text_of(node, "leaf"), std::to_string(int_of(node, "gpus")), text_of(node, "state"),
                    text_of(node, "reason")});
  }
  context.put(table(rows));
}

Result<Json> wait_ready(Context& context, const std::string& name) {
  CatchInterrupt catch_interrupt;
  LiveLine live;
  int64_t begin = monotonic_now_ns();
  while (true) {
    TH_TRY(Json slice, context.get(path_of(name)));
    std::string state = text_of(slice, "state");
    if (state == "ready") return slice;
    if (state != "held" && state != "starting" && state != "degraded") {
      std::string reason = text_of(slice, "reason");
      const std::string code = text_of(slice, "code");
      return fail(code.empty() ? Code::kFailedPrecondition : code_from_name(code),
                  fmt::format("slice {} is {}{}{}; see: th why {}", name, state, reason.empty() ? "" : ": ",
                              reason, name));
    }
    if (int_of(slice, "start_ns") > Env::real().unix_ns() + kMinute) return slice;  // leased for later
    std::string line = fmt::format("slice {} is {}, {}", name, state, nodes_line(slice));
    int64_t seconds = (monotonic_now_ns() - begin) / kSecond;
    live.show(seconds == 0 ? line : fmt::format("{}, {} s", line, seconds), line);
    if (!pause_ms(100)) {
      live.clear();
      context.say(
          fmt::format("\nno longer watching; the slice comes up without you: th slice show {}", name));
      context.exit_status = kInterrupted;
      return slice;
    }
  }
}

Result<Json> list_slices(Context& context) {
  TH_TRY(Json slices, context.get("/slices"));
  std::vector<std::vector<std::string>> rows = {{"SLICE", "STATE", "GPUS", "SERIES", "START", "END", "COST"}};
  for (const Json& slice : list_of(slices)) {
    rows.push_back({text_of(slice, "name"), text_of(slice, "state"), std::to_string(int_of(slice, "gpus")),
                    text_of(slice, "series"), format_time(int_of(slice, "start_ns")),
                    format_time(int_of(slice, "end_ns")), format_money(int_of(slice, "cost_microusd"))});
  }
  context.put(rows.size() == 1 ? "no slices\n" : table(rows));
  return slices;
}

Result<Json> release_slice(Context& context, const std::string& name) {
  TH_TRY(Json slice, context.del(path_of(name)));
  context.say(fmt::format("slice {} is {}", name,
                          text_of(slice, "state").empty() ? "being released" : text_of(slice, "state")));
  return slice;
}

/// "8" or "8-64" as `name` and "min_" + name.
Status add_size(const char* name, const std::string& text, Json& body) {
  if (text.empty()) return {};
  auto range = request::parse_count_range(text, request::kMaxRequestGpus);
  if (!range) return fail_with(fmt::format("--{}", name), range.error());
  body[name] = range->max;
  if (range->min < range->max) body[fmt::format("min_{}", name)] = range->min;
  return {};
}

Status add_moment(const char* option, const char* field, const std::string& text, Json& body) {
  if (text.empty()) return {};
  auto moment = request::parse_moment(text, Env::real().unix_ns());
  if (!moment) return fail_with(fmt::format("--{}", option), moment.error());
  body[field] = *moment;
  return {};
}

Result<Json> resize_slice(Context& context, const std::string& name, int64_t gpus) {
  TH_TRY(Json slice, context.post(path_of(name) + "/resize", {{"gpus", gpus}}));
  const int64_t had = int_of(slice, "gpus"), want = int_of(slice, "resizing_to_gpus");
  CatchInterrupt catch_interrupt;
  LiveLine live;
  while (int_of(slice, "resizing_to_gpus") > 0 && pause_ms(100)) {
    live.show(fmt::format("slice {} grows from {} to {} GPUs", name, had, want), "growing");
    TH_TRY(slice, context.get(path_of(name)));
  }
  live.clear();
  if (want > 0 && int_of(slice, "resizing_to_gpus") == 0 && int_of(slice, "gpus") != want)
    return fail(Code::kFailedPrecondition,
                fmt::format("slice {} was not resized: {}", name, text_of(slice, "reason")));
  context.say(fmt::format("slice {} has {} GPUs", name, int_of(slice, "gpus")));
  return slice;
}

Result<Json> body_of(const SliceOptions& options) {
  TH_TRY(int64_t duration_ns, parse_duration_ns(options.duration));
  Json body{{"name", options.name}, {"series", options.series}, {"duration_ns", duration_ns}};
  if (options.gpus.empty() == options.nodes.empty()) {
    return fail(Code::kInvalidArgument, "slice create wants either --gpus or --nodes");
  }
  TH_RETURN_IF_ERROR(add_size("gpus", options.gpus, body));
  TH_RETURN_IF_ERROR(add_size("nodes", options.nodes, body));
  TH_RETURN_IF_ERROR(add_moment("start", "start_ns", options.start, body));
  TH_RETURN_IF_ERROR(add_moment("deadline", "deadline_ns", options.deadline, body));
  if (!options.max_price.empty()) {
    TH_TRY(body["max_microusd_per_gpu_hour"], parse_money_microusd(options.max_price));
  }
  if (!options.budget.empty()) {
    TH_TRY(body["budget_microusd"], parse_money_microusd(options.budget));
  }
  for (auto [field, count] :
       {std::pair("spares", options.spares), std::pair("max_switches", options.switches),
        std::pair("segment", options.segment)}) {
    if (count > 0) body[field] = count;
  }
  if (!options.idle.empty()) {
    TH_TRY(body["idle_ns"], parse_duration_ns(options.idle));
  }
  if (!options.stack.empty()) body["stack"] = options.stack;
  if (!options.account.empty()) body["account"] = options.account;
  if (!options.or_series.empty()) body["or_series"] = options.or_series;
  if (!options.zones.empty()) body["zones"] = options.zones;
  if (options.spread) body["spread"] = true;
  if (options.spot) body["spot"] = true;
  return body;
}

}  // namespace

Result<Json> create_slice(Context& context, const SliceOptions& options) {
  TH_TRY(Json body, body_of(options));
  TH_TRY(Json offer, context.post("/offers", body));
  print_offer(context, offer);
  if (options.dry_run) return Json{{"offer", std::move(offer)}};
  TH_TRY(Json held, context.post("/slices", body));
  context.say(fmt::format("held    as {}", text_of(held, "id")));
  TH_TRY(Json committed, context.post(path_of(options.name) + "/commit", Json::object()));
  context.say("leased");
  TH_TRY(Json slice, wait_ready(context, options.name));
  if (text_of(slice, "state") == "ready") {
    print_nodes(context, slice);
    context.say(fmt::format("slice {} is ready", options.name));
  }
  return slice;
}

Result<Json> show_slice(Context& context, const std::string& name) {
  TH_TRY(Json slice, context.get(path_of(name)));
  context.say(fmt::format("slice {} is {}: {} GPUs of {}, {} to {}, {} so far", name, text_of(slice, "state"),
                          int_of(slice, "gpus"), text_of(slice, "series"),
                          format_time(int_of(slice, "start_ns")), format_time(int_of(slice, "end_ns")),
                          format_money(int_of(slice, "cost_microusd"))));
  print_nodes(context, slice);
  return slice;
}

void add_slice(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<SliceOptions>();
  auto* slice = app.add_subcommand("slice", "Acquire, show and release slices");
  slice->require_subcommand(1);
  slice->footer("Example:\n  th slice create demo --gpus 4 --series LOCAL --for 1h");

  auto* create =
      slice->add_subcommand("create", "Acquire a slice: offer, hold, lease, wait until it is ready");
  create->add_option("NAME", options->name, "name of the slice")->required();
  create->add_option("--gpus", options->gpus,
                     "GPUs, rounded up to whole hosts; 8-64: the most that start in time");
  create->add_option("--nodes", options->nodes, "whole hosts instead; 2-4: the most that start in time");
  create->add_option("--series", options->series, "VM series, see: th fleet")->required();
  create
      ->add_option("--or-series", options->or_series, "series to take, in this order, where it cannot be had")
      ->delimiter(',');
  create->add_option("--zone", options->zones, "zones of the cloud's region, tried in this order; else any")
      ->delimiter(',');
  create->add_option("--stack", options->stack, "software that its nodes have to hold, see: th stack list");
  create->add_option("--account", options->account, "tenant that it is for and that pays (default: yours)");
  create->add_option("--idle", options->idle, "released when nothing ran on it for so long: 30m");
  create->add_option("--for", options->duration, "how long: 90s, 1h30m, 2d")->required();
  create->add_option("--max-price", options->max_price, "at most so many dollars a GPU-hour");
  create->add_option("--budget", options->budget, "at most so many dollars in all");
  create->add_option("--start", options->start,
                     "not before: now+1hour, 16:00, tomorrow, 2027-01-31T08:00:00");
  create->add_option("--deadline", options->deadline, "to have ended by then");
  create->add_option("--spares", options->spares, "hosts held back beside the others")
      ->check(CLI::NonNegativeNumber);
  create->add_option("--switches", options->switches, "leaf switches it may span")
      ->check(CLI::PositiveNumber);
  create->add_option("--segment", options->segment, "hosts in blocks of so many, each under one leaf")
      ->check(CLI::PositiveNumber);
  auto* spread = create->add_flag("--spread", options->spread, "over as many racks as there are");
  create->add_flag("--pack", options->pack, "as near together as it goes (the default)")->excludes(spread);
  create->add_flag("--spot", options->spot, "cheaper, and may be taken back after a notice");
  create->add_flag("--dry-run", options->dry_run, "only print the offer; nothing is kept");
  create->footer(
      "Examples:\n  th slice create demo --gpus 4 --series LOCAL --for 1h --max-price 1.25\n"
      "  th slice create big --nodes 2-4 --series LOCAL --for 8h --start now+2hours --budget 500 --dry-run");
  create->callback(
      [&verb, options] { verb = [options](Context& context) { return create_slice(context, *options); }; });

  auto* list = slice->add_subcommand("list", "List slices");
  list->footer("Example:\n  th slice list");
  list->callback([&verb] { verb = list_slices; });

  auto* show = slice->add_subcommand("show", "Show one slice with its nodes");
  show->add_option("NAME", options->name, "name of the slice")->required();
  show->footer("Example:\n  th slice show demo");
  show->callback([&verb, options] {
    verb = [options](Context& context) { return show_slice(context, options->name); };
  });

  auto* resize = slice->add_subcommand("resize", "Grow or shrink a slice that is ready, all or none");
  resize->add_option("NAME", options->name, "name of the slice")->required();
  resize->add_option("--gpus", options->resized_gpus, "GPUs that it shall have, rounded up to whole hosts")
      ->required();
  resize->footer("Example:\n  th slice resize demo --gpus 8");
  resize->callback([&verb, options] {
    verb = [options](Context& context) {
      return resize_slice(context, options->name, options->resized_gpus);
    };
  });

  auto* release = slice->add_subcommand("release", "Cancel its jobs, delete its VMs, stop paying");
  release->add_option("NAME", options->name, "name of the slice")->required();
  release->footer("Example:\n  th slice release demo");
  release->callback([&verb, options] {
    verb = [options](Context& context) { return release_slice(context, options->name); };
  });
}

}  // namespace th::cli
