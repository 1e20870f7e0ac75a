// th squeue, sinfo, scancel and sacct: what is there, in Slurm's columns and letters.

#include "slurm.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "http/url.h"
#include "job.h"
#include "launch/rendezvous.h"
#include "terminal.h"

namespace th::cli {
namespace {

struct Options {
  std::vector<std::string> jobs;
  std::string states, partition, name, format;
  bool no_header = false, all = false, no_steps = false, parsable = false;
};

/// Whether the job is among those asked for by number; none: all are.
bool asked_for(const Json& job, const std::vector<std::string>& wanted) {
  if (wanted.empty()) return true;
  const std::string step_of = text_of(object_of(job, "options"), "step_of");
  return std::ranges::any_of(wanted, [&](const std::string& list) {
    return std::ranges::any_of(split(list, ','), [&](const std::string& id) {
      const std::string number = id.starts_with("job-") ? id.substr(4) : id;
      return number == plain_number(job) || number == shown_id(job) || number == array_number(job) ||
             "job-" + number == step_of;
    });
  });
}

bool matches(const Json& job, const Options& options) {
  auto among = [](const std::string& list, const std::string& value) {
    return list.empty() || std::ranges::count(split(list, ','), value) > 0;
  };
  return asked_for(job, options.jobs) && among(options.partition, text_of(job, "slice")) &&
         among(options.name, text_of(job, "name")) &&
         (options.states.empty() || among(options.states, state_letters(job)) ||
          among(options.states, state_word(job)));
}

Result<Json> all_jobs(const Context& context) { return context.get("/jobs"); }

void print_rows(const Context& context, std::vector<std::vector<std::string>> rows, bool no_header,
                bool parsable) {
  if (no_header) rows.erase(rows.begin());
  if (!parsable) return context.put(rows.empty() ? "" : table(rows));
  for (const auto& row : rows) context.say(join(row, "|"));
}

/// Pending tasks of one array, with the same reason, are one line: "12_[2-3]".
std::vector<std::vector<std::string>> queue_rows(const std::vector<Json>& jobs) {
  std::vector<std::vector<std::string>> rows = {
      {"JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)"}};
  std::map<std::string, size_t> arrays;  // array and reason → row
  std::map<size_t, std::vector<int64_t>> indices;
  for (const Json& job : jobs) {
    const std::string letters = state_letters(job);
    const std::string where = letters == "PD" ? "(" + reason_word(job) + ")" : node_list(job);
    const std::string array = array_number(job), user = text_of(job, "user");
    rows.push_back({shown_id(job), partition_of(job), text_of(job, "name"), user.empty() ? "-" : user,
                    letters, elapsed(job), std::to_string(num_nodes(job)), where});
    if (letters != "PD" || array.empty()) continue;
    auto [at, fresh] = arrays.try_emplace(array + where, rows.size() - 1);
    indices[at->second].push_back(int_of(object_of(job, "options"), "array_index"));
    if (!fresh) rows.pop_back();
    const int64_t limit = int_of(object_of(job, "options"), "array_limit");
    std::vector<std::string> names;
    for (int64_t index : indices[at->second]) names.push_back("_" + std::to_string(index));
    std::string list = launch::compress_nodes(names);  // "_[2-3,5]"
    if (names.size() == 1) list = "_[" + names[0].substr(1) + "]";
    if (limit > 0) list.insert(list.size() - 1, "%" + std::to_string(limit));
    rows[at->second][0] = array + list;
  }
  return rows;
}

Result<Json> squeue(Context& context, const Options& options) {
  TH_TRY(Json jobs, all_jobs(context));
  std::vector<Json> shown;
  for (const Json& job : list_of(jobs)) {
    const bool live = !has_ended(job) || !options.states.empty();
    if (live && text_of(job, "kind") != "step" && matches(job, options)) shown.push_back(job);
  }
  print_rows(context, queue_rows(shown), options.no_header, false);
  return Json{{"items", shown}};
}

Result<Json> sinfo(Context& context, const Options& options) {
  TH_TRY(Json slices, context.get("/slices"));
  TH_TRY(Json jobs, all_jobs(context));
  std::map<std::string, std::set<int64_t>> used;  // node → GPUs
  for (const Json& job : list_of(jobs)) {
    if (has_ended(job) || int_of(job, "attempt") == 0) continue;
    for (const Json& place : list_of(job, "places")) {
      for (const Json& gpu : list_of(place, "gpus")) used[text_of(place, "node")].insert(gpu.get<int64_t>());
    }
  }
  std::vector<std::vector<std::string>> rows = {
      {"PARTITION", "AVAIL", "TIMELIMIT", "NODES", "STATE", "NODELIST"}};
  Json items = Json::array();
  for (const Json& slice : list_of(slices)) {
    const std::string state = text_of(slice, "state"), name = text_of(slice, "name");
    const bool live = state == "ready" || state == "degraded" || state == "starting" || state == "held";
    const bool implicit = slice.value("implicit", false);
    if (!live || (implicit && !options.all) || (!options.partition.empty() && options.partition != name))
      continue;
    std::map<std::string, std::vector<std::string>> by_state;
    for (const Json& node : list_of(slice, "nodes")) {
      by_state[node_state(node, used[text_of(node, "name")].size())].push_back(text_of(node, "name"));
    }
    if (by_state.empty()) by_state["futr"] = {};
    const int64_t left_ns = int_of(slice, "end_ns") - Env::real().unix_ns();
    for (const auto& [node_state, nodes] : by_state) {
      rows.push_back({name, state == "held" ? "inact" : "up", clock_text(std::max<int64_t>(0, left_ns)),
                      std::to_string(nodes.size()), node_state, launch::compress_nodes(nodes)});
      items.push_back({{"partition", name},
                       {"avail", rows.back()[1]},
                       {"time_left_ns", left_ns},
                       {"state", node_state},
                       {"nodes", nodes}});
    }
  }
  print_rows(context, rows, options.no_header, false);
  return Json{{"items", std::move(items)}};
}

Result<Json> scancel(Context& context, const Options& options) {
  if (options.jobs.empty() && options.name.empty() && options.partition.empty() && options.states.empty()) {
    return fail(Code::kInvalidArgument,
                "scancel wants a job, such as 12 or 12_3, or --name, --partition, --state");
  }
  TH_TRY(Json jobs, all_jobs(context));
  for (const std::string& id : options.jobs) {
    const bool known =
        std::ranges::any_of(list_of(jobs), [&](const Json& job) { return asked_for(job, {id}); });
    if (!known)
      return fail(Code::kNotFound, fmt::format("job '{}' does not exist; th squeue lists those that do", id));
  }
  Json items = Json::array();
  for (const Json& job : list_of(jobs)) {
    const bool step = text_of(job, "kind") == "step";
    if (has_ended(job) || step || !matches(job, options)) continue;
    TH_TRY(Json cancelled, context.del("/jobs/" + http::percent_encode(text_of(job, "id"))));
    items.push_back(std::move(cancelled));
  }
  return Json{{"items", std::move(items)}};
}

Result<Json> sacct(Context& context, const Options& options) {
  TH_TRY(Json jobs, all_jobs(context));
  const std::vector<std::string> columns = split(
      options.format.empty() ? "JobID,JobName,Partition,Account,AllocTRES,State,ExitCode" : options.format,
      ',');
  std::vector<std::vector<std::string>> rows(1);
  for (const std::string& column : columns) {
    TH_TRY(std::string name, account_column(column));
    rows[0].push_back(std::move(name));
  }
  Json items = Json::array();
  for (const Json& job : list_of(jobs)) {
    const bool step = text_of(job, "kind") == "step";
    if (!matches(job, options) || (step && options.no_steps)) continue;
    std::vector<std::string>& row = rows.emplace_back();
    for (const std::string& column : rows[0]) row.push_back(account_value(job, column));
    items.push_back(job);
  }
  print_rows(context, rows, options.no_header, options.parsable);
  return Json{{"items", std::move(items)}};
}

CLI::App* add(CLI::App& app, Verb& verb, const char* name, const char* what, const char* example,
              const std::shared_ptr<Options>& options, Result<Json> (*run)(Context&, const Options&)) {
  auto* sub = app.add_subcommand(name, what);
  sub->set_help_flag("--help", "print this");
  sub->footer(fmt::format("Example:\n  {}", example));
  sub->add_option("-p,--partition", options->partition, "of these partitions (slices)");
  sub->callback(
      [&verb, options, run] { verb = [options, run](Context& context) { return run(context, *options); }; });
  return sub;
}

}  // namespace

void add_slurm(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<Options>();
  auto* queue = add(app, verb, "squeue", "List jobs that wait and run, as Slurm does", "th squeue -p demo",
                    options, squeue);
  auto* info = add(app, verb, "sinfo", "List partitions and the state of their nodes, as Slurm does",
                   "th sinfo", options, sinfo);
  auto* cancel =
      add(app, verb, "scancel", "Cancel jobs, as Slurm does", "th scancel 12 13_2", options, scancel);
  auto* account = add(app, verb, "sacct", "List jobs and their steps with what became of them, as Slurm does",
                      "th sacct -j 12 --format JobID,State,Elapsed", options, sacct);
  for (CLI::App* sub : {queue, info, account}) {
    sub->add_flag("-h,--noheader,-n", options->no_header, "without the heading");
  }
  for (CLI::App* sub : {queue, account}) sub->add_option("-j,--jobs", options->jobs, "these jobs: 12,13_2");
  for (CLI::App* sub : {queue, cancel, account}) {
    sub->add_option("--name", options->name, "of this name");
    sub->add_option("-t,--states,--state,-s", options->states, "in these states: PD,R or PENDING,RUNNING");
  }
  info->add_flag("-a,--all", options->all, "slices made for one job too");
  cancel->add_option("JOB", options->jobs, "12, job-12, or 13_2 of an array");
  account->add_flag("-X,--allocations", options->no_steps, "without steps");
  account->add_flag("-P,--parsable2", options->parsable, "columns between |");
  account->add_option(
      "-o,--format", options->format,
      "JobID,JobName,Partition,Account,AllocTRES,State,ExitCode,Elapsed,Submit,Start,End,NodeList,"
      "NNodes,QOS,Reason,Timelimit,User");
}

}  // namespace th::cli
