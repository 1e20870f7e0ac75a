// th slurm resume, suspend and topology: a Slurm whose nodes come from here when a job needs them.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/env.h"
#include "base/files.h"
#include "base/units.h"
#include "context.h"
#include "fleet/series.h"
#include "http/url.h"
#include "launch/slurm/conf.h"
#include "process.h"
#include "request/job_options.h"
#include "terminal.h"

namespace th::cli {
namespace {

namespace fs = std::filesystem;

struct PowerOptions {
  std::string nodes, series, program, duration = "1d", timeout = "5m", out;
};

std::string slice_of(const std::string& node) { return "slurm-" + node; }
std::string slice_path(const std::string& node) { return "/slices/" + http::percent_encode(slice_of(node)); }

bool is_over(const std::string& state) {
  return state == "released" || state == "failed" || state == "expired";
}

Result<std::vector<std::string>> named_nodes(const PowerOptions& options) {
  auto nodes = request::parse_hostlist(options.nodes);
  if (!nodes) return fail_with(fmt::format("host list '{}'", options.nodes), nodes.error());
  return nodes;
}

/// The live slice of the node; null when there is none.
Result<Json> live_slice(const Context& context, const std::string& node) {
  auto slice = context.get(slice_path(node));
  if (!slice && slice.error().code == Code::kNotFound) return Json();
  if (!slice) return slice;
  return is_over(text_of(*slice, "state")) ? Json() : *slice;
}

/// Gives back what was taken, when not all can be had.
void give_back(const Context& context, const std::vector<std::string>& nodes) {
  for (const std::string& node : nodes) {
    if (auto done = context.del(slice_path(node)); !done) {
      context.say(fmt::format("slice {} could not be released: {}", slice_of(node), done.error().message));
    }
  }
}

/// Holds a slice of one host for each node, all or none, and leases them. Returns those that it made.
Result<std::vector<std::string>> lease_nodes(const Context& context, const PowerOptions& options,
                                             const std::vector<std::string>& nodes) {
  TH_TRY(int64_t duration_ns, parse_duration_ns(options.duration));
  std::vector<std::string> made;
  for (const std::string& node : nodes) {
    TH_TRY(Json live, live_slice(context, node));
    if (!live.is_null()) continue;  // asked for again
    auto held = context.post(
        "/slices",
        {{"name", slice_of(node)}, {"series", options.series}, {"nodes", 1}, {"duration_ns", duration_ns}});
    if (!held) {
      give_back(context, made);
      return fail_with(fmt::format("node {} of {}", node, options.nodes), held.error());
    }
    made.push_back(node);
  }
  for (const std::string& node : made) {
    if (auto leased = context.post(slice_path(node) + "/commit", Json::object()); !leased) {
      give_back(context, made);
      return fail_with(fmt::format("node {} of {}", node, options.nodes), leased.error());
    }
  }
  return made;
}

Result<Json> wait_for_node(const Context& context, const std::string& node, int64_t end_ns) {
  while (true) {
    TH_TRY(Json slice, context.get(slice_path(node)));
    const std::string state = text_of(slice, "state"), reason = text_of(slice, "reason");
    if (state == "ready") return slice;
    if (is_over(state)) {
      return fail(Code::kFailedPrecondition,
                  fmt::format("node {}: slice {} is {}{}{}; see: th why {}", node, slice_of(node), state,
                              reason.empty() ? "" : ": ", reason, slice_of(node)));
    }
    if (monotonic_now_ns() > end_ns) {
      return fail(
          Code::kDeadlineExceeded,
          fmt::format("node {}: slice {} is still {}; --timeout makes it wait longer, th why {} says more",
                      node, slice_of(node), state, slice_of(node)));
    }
    pause_ms(50);
  }
}

Status run_program(const std::string& program, const std::string& node, const std::string& host) {
  if (program.empty()) return {};
  TH_TRY(Finished done, run_and_wait({program, node, host}));
  if (done.exit_status == 0) return {};
  while (done.output.ends_with('\n')) done.output.pop_back();
  return fail(Code::kFailedPrecondition,
              fmt::format("node {}: {} {} {} ended with {}: {}", node, program, node, host, done.exit_status,
                          done.output.empty() ? "it said nothing" : done.output));
}

Status start_nodes(const Context& context, const PowerOptions& options, const std::vector<std::string>& nodes,
                   Json& items) {
  TH_TRY(int64_t timeout_ns, parse_duration_ns(options.timeout));
  const int64_t end_ns = monotonic_now_ns() + timeout_ns;
  for (const std::string& node : nodes) {
    TH_TRY(Json slice, wait_for_node(context, node, end_ns));
    const Json& vms = list_of(slice, "nodes");
    const std::string host = vms.empty() ? "" : text_of(vms[0], "host");
    TH_RETURN_IF_ERROR(run_program(options.program, node, host));
    context.say(fmt::format("{} runs on host {}, as slice {}", node, host, slice_of(node)));
    items.push_back({{"node", node}, {"slice", slice_of(node)}, {"host", host}});
  }
  return {};
}

Result<Json> resume_nodes(Context& context, const PowerOptions& options) {
  TH_TRY(std::vector<std::string> nodes, named_nodes(options));
  TH_TRY(std::vector<std::string> made, lease_nodes(context, options, nodes));
  Json items = Json::array();
  if (Status started = start_nodes(context, options, nodes, items); !started) {
    give_back(context, made);
    return tl::unexpected(started.error());
  }
  return Json{{"items", items}};
}

Result<Json> suspend_nodes(Context& context, const PowerOptions& options) {
  TH_TRY(std::vector<std::string> nodes, named_nodes(options));
  Json items = Json::array();
  std::optional<Error> problem;
  for (const std::string& node : nodes) {  // one that does not go does not keep the others
    auto slice = live_slice(context, node);
    if (!slice) return slice;
    if (slice->is_null()) continue;
    const Json& vms = list_of(*slice, "nodes");
    Status stopped = run_program(options.program, node, vms.empty() ? "" : text_of(vms[0], "host"));
    if (auto gone = context.del(slice_path(node)); !gone) stopped = tl::unexpected(gone.error());
    if (!stopped && !problem) problem = stopped.error();
    context.say(fmt::format("{} is given back: slice {}", node, slice_of(node)));
    items.push_back({{"node", node}, {"slice", slice_of(node)}});
  }
  if (problem) return tl::unexpected(*problem);
  return Json{{"items", items}};
}

launch::SlurmHost slurm_host(const Json& rack, const Json& host) {
  launch::SlurmHost out;
  out.name = text_of(host, "id"), out.leaf = text_of(rack, "leaf"), out.spine = text_of(rack, "spine");
  out.gpus = int_of(host, "gpus");
  if (auto series = fleet::find_series(text_of(host, "series"))) {
    const fleet::Series& of = fleet::series_catalogue()[static_cast<size_t>(*series)];
    out.gpu_type = launch::gpu_type_of(of.accelerator), out.cpus = of.vcpus, out.memory_bytes = of.ram_bytes;
  }
  return out;
}

Result<Json> show_topology(Context& context, const PowerOptions& options) {
  TH_TRY(Json fleet, context.get("/fleet"));
  std::vector<launch::SlurmHost> hosts;
  for (const Json& rack : list_of(fleet, "racks")) {
    for (const Json& host : list_of(rack, "hosts")) hosts.push_back(slurm_host(rack, host));
  }
  const launch::SlurmConf conf = launch::slurm_conf(hosts);
  Json files = Json::object();
  for (const auto& [name, text] : {std::pair("topology.conf", conf.topology),
                                   std::pair("gres.conf", conf.gres), std::pair("nodes.conf", conf.nodes)}) {
    files[name] = text;
    if (options.out.empty()) {
      context.put(fmt::format("--- {}\n{}", name, text));
    } else {
      TH_RETURN_IF_ERROR(write_file_durable(fs::path(options.out) / name, text));
      context.say(fmt::format("written {}", (fs::path(options.out) / name).string()));
    }
  }
  return Json{{"hosts", hosts.size()}, {"files", std::move(files)}};
}

}  // namespace

void add_slurm_power(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<PowerOptions>();
  auto* slurm =
      app.add_subcommand("slurm", "For a Slurm of yours: power its nodes up and down, write its files");
  slurm->require_subcommand(1);
  slurm->footer("Example:\n  th slurm resume --series LOCAL 'c[1-2]'");
  auto add = [&](const char* name, const char* what, Result<Json> (*run)(Context&, const PowerOptions&),
                 const char* example) {
    auto* sub = slurm->add_subcommand(name, what);
    sub->footer(fmt::format("Example:\n  {}\ndocs/slurm-cluster.md shows slurm.conf.", example));
    sub->callback([&verb, run, options] {
      verb = [run, options](Context& context) { return run(context, *options); };
    });
    return sub;
  };
  auto* up = add("resume", "ResumeProgram: a VM for each node, all or none", resume_nodes,
                 "th slurm resume --series ND_H100_v5 --start /etc/slurm/start 'c[1-2]'");
  up->add_option("HOSTLIST", options->nodes, "nodes as Slurm names them: c[1-4,7]")->required();
  up->add_option("--series", options->series, "VM series, see: th fleet")->required();
  up->add_option("--for", options->duration,
                 "how long at most (default: 1d); what is given back earlier costs no more");
  up->add_option("--timeout", options->timeout, "how long to wait for them (default: 5m)");
  up->add_option(
      "--start", options->program,
      "program to run as PROGRAM NODE HOST when a VM is ready, such as one that starts slurmd -b on it");
  auto* down =
      add("suspend", "SuspendProgram: gives the VMs back", suspend_nodes, "th slurm suspend 'c[1-2]'");
  down->add_option("HOSTLIST", options->nodes, "nodes as Slurm names them")->required();
  down->add_option("--stop", options->program, "program to run as PROGRAM NODE HOST before a VM goes");
  auto* files = add("topology", "Print topology.conf, gres.conf and node lines of the fleet", show_topology,
                    "th slurm topology --out /etc/slurm");
  files->add_option("--out", options->out, "folder to write them to")->check(CLI::ExistingDirectory);
}

}  // namespace th::cli
