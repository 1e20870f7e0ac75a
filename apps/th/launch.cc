// th launch: frameworks' own launchers on a slice.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"
#include "gang_script.h"
#include "http/url.h"
#include "job.h"
#include "launch/frameworks.h"

namespace th::cli {
namespace {

struct LaunchOptions {
  SubmitOptions submit;
  launch::FrameworkOptions framework;
  std::string name, out;
  int64_t nodes = 0, gpus_per_node = 0;  // 0: the slice's
  bool dry_run = false, untried = false;
};

/// Nodes and GPUs of each from the slice, where they were not given.
Status take_shape(const Context& context, LaunchOptions& options) {
  auto& shape = options.framework;
  shape.num_nodes = std::max<int64_t>(options.nodes, 1), shape.gpus_per_node = options.gpus_per_node;
  if (options.submit.slice.empty()) {
    if (options.gpus_per_node > 0) return {};
    return fail(Code::kInvalidArgument,
                "want --slice NAME, or --nodes N --gpus-per-node G for a slice of its own");
  }
  TH_TRY(Json slice, context.get("/slices/" + http::percent_encode(options.submit.slice)));
  const Json& nodes = list_of(slice, "nodes");
  if (nodes.empty()) {
    return fail(Code::kFailedPrecondition,
                fmt::format("slice {} is {} and has no nodes: wait until it is ready, or make another",
                            options.submit.slice, text_of(slice, "state")));
  }
  const int64_t each = int_of(nodes[0], "gpus");
  for (const Json& node : nodes) {
    if (options.gpus_per_node == 0 && int_of(node, "gpus") != each) {
      return fail(
          Code::kFailedPrecondition,
          fmt::format("slice {}: its nodes have not all {} GPUs ({} has {}); say --nodes and --gpus-per-node",
                      options.submit.slice, each, text_of(node, "name"), int_of(node, "gpus")));
    }
  }
  if (options.nodes > static_cast<int64_t>(nodes.size())) {
    return fail(Code::kInvalidArgument, fmt::format("--nodes {}: slice {} has {}", options.nodes,
                                                    options.submit.slice, nodes.size()));
  }
  if (options.nodes == 0) shape.num_nodes = static_cast<int64_t>(nodes.size());
  if (options.gpus_per_node == 0) shape.gpus_per_node = each;
  for (int64_t node = 0; node < shape.num_nodes; ++node) {
    shape.hosts.push_back(text_of(nodes[static_cast<size_t>(node)], "name"));
  }
  return {};
}

request::JobSpec spec_of_launch(const LaunchOptions& options, const launch::FrameworkLaunch& launch) {
  const auto& shape = options.framework;
  request::JobSpec spec;
  spec.name = options.name, spec.command = launch.command, spec.files = launch.files;
  spec.gpus = shape.num_nodes * shape.gpus_per_node;
  spec.min_nodes = spec.max_nodes = shape.num_nodes, spec.gpus_per_node = shape.gpus_per_node;
  if (launch.rank_per_node) spec.ntasks = shape.num_nodes, spec.ntasks_per_node = 1;
  std::error_code ignored;
  spec.workdir = std::filesystem::current_path(ignored);
  return spec;
}

Result<Json> show(const Context& context, const LaunchOptions& options,
                  const launch::FrameworkLaunch& launch) {
  for (const auto& [path, text] : launch.files) {
    if (options.out.empty()) {
      context.say(
          fmt::format("--- {}\n{}", path, text.ends_with('\n') ? text.substr(0, text.size() - 1) : text));
      continue;
    }
    std::error_code ec;
    std::filesystem::create_directories(options.out, ec);
    TH_RETURN_IF_ERROR(write_file_durable(std::filesystem::path(options.out) / path, text));
    context.say(fmt::format("written {}/{}", options.out, path));
  }
  context.say("--- command of each rank\n" + join(launch.command, " "));
  return Json{{"framework", options.name},
              {"layout", launch.layout},
              {"command", launch.command},
              {"files", launch.files},
              {"tried", launch.tried}};
}

Result<Json> launch_framework(Context& context, LaunchOptions options) {
  TH_TRY(options.framework.framework, launch::parse_framework(options.name));
  options.framework.arguments = context.command;
  if (context.command.empty()) options.framework.arguments.clear();
  TH_RETURN_IF_ERROR(take_shape(context, options));
  TH_TRY(launch::FrameworkLaunch launch, launch::launch_of(options.framework, kGangScript));
  context.say(fmt::format("{}: {}", options.name, launch.layout));
  if (!launch.tried) {
    context.say(fmt::format(
        "generated, not run here: {} was never run by this project's tests, which check what is generated{}",
        options.name, options.untried ? "" : "; --untried submits it nevertheless"));
  }
  if (options.dry_run || (!launch.tried && !options.untried)) return show(context, options, launch);
  request::JobSpec spec = spec_of_launch(options, launch);
  TH_RETURN_IF_ERROR(apply_options(options.submit, spec));
  return submit_spec(context, spec, options.submit);
}

}  // namespace

void add_launch(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<LaunchOptions>();
  auto& framework = options->framework;
  auto* sub = app.add_subcommand(
      "launch", "Run a framework as it is on a slice: torchrun, mpirun, deepspeed, megatron");
  sub->add_option("FRAMEWORK", options->name, "torchrun, mpirun, deepspeed or megatron")->required();
  sub->add_option("--nodes", options->nodes, "nodes (default: the slice's)")->check(CLI::PositiveNumber);
  sub->add_option("--gpus-per-node", options->gpus_per_node, "GPUs of each (default: the slice's)")
      ->check(CLI::PositiveNumber);
  sub->add_option("--micro-batch", framework.micro_batch,
                  "sequences that a GPU takes at once (deepspeed, megatron)");
  sub->add_option("--global-batch", framework.global_batch,
                  "sequences of a step (default: the micro batch of each data-parallel rank)");
  sub->add_option("--zero-stage", framework.zero_stage, "DeepSpeed's ZeRO: 0 to 3 (default: 1)");
  sub->add_option("--tensor-parallel", framework.tensor_parallel,
                  "Megatron: GPUs of a layer (default: a node's, up to 8)");
  sub->add_option("--pipeline-parallel", framework.pipeline_parallel, "Megatron: stages (default: 1)");
  sub->add_flag("--dry-run", options->dry_run, "print command and files, submit nothing");
  sub->add_flag("--untried", options->untried,
                "submit deepspeed or megatron, which this project's tests do not run");
  sub->add_option("--out", options->out, "folder to write the files to that a dry run makes");
  add_submit_options(*sub, options->submit);
  sub->footer(
      "What stands after '--' goes to the framework's launcher.\nExamples:\n"
      "  th launch torchrun --slice demo -- train.py --lr 3e-4\n"
      "  th launch mpirun --slice demo -- ./solver input.dat\n"
      "  th launch megatron --slice demo --pipeline-parallel 2 --global-batch 256 --dry-run -- "
      "pretrain_gpt.py --bf16");
  sub->callback([&verb, options] {
    verb = [options](Context& context) { return launch_framework(context, *options); };
  });
}

}  // namespace th::cli
