#include "launch/frameworks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"

namespace th::launch {
namespace {

constexpr std::array<const char*, 4> kNames = {"torchrun", "mpirun", "deepspeed", "megatron"};
constexpr int64_t kMaxTensorParallel = 8;

// Static rendezvous: the nodes of a gang are fixed, and the controller starts another attempt when one is
// lost.
constexpr const char* kMeeting =
    "--node_rank \"$GROUP_RANK\" --master_addr \"$MASTER_ADDR\" --master_port \"$MASTER_PORT\"";

Error wrong(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }

/// A shell line that gets the arguments as "$@".
std::vector<std::string> shell(const std::string& line, const FrameworkOptions& options) {
  std::vector<std::string> command = {"sh", "-c", line, framework_name(options.framework)};
  command.insert(command.end(), options.arguments.begin(), options.arguments.end());
  return command;
}

std::string torchrun_line(const FrameworkOptions& options) {
  return fmt::format("torchrun --nnodes {} --nproc_per_node {} {}", options.num_nodes, options.gpus_per_node,
                     kMeeting);
}

/// Sequences of a step and how often each rank adds up: global = micro x accumulation x ranks.
struct Batch {
  int64_t global = 0, accumulation = 0;
};
Result<Batch> batch_of(const FrameworkOptions& options, int64_t data_parallel) {
  const int64_t least = options.micro_batch * data_parallel;
  const int64_t global = options.global_batch == 0 ? least : options.global_batch;
  if (global % least == 0) return Batch{global, global / least};
  const int64_t below = global / least * least;
  return tl::unexpected(wrong(fmt::format(
      "--global-batch {}: want a multiple of {} (micro batch {} x {} data-parallel ranks), such as {}",
      global, least, options.micro_batch, data_parallel, below == 0 ? least : below)));
}

Result<FrameworkLaunch> deepspeed(const FrameworkOptions& options) {
  if (options.zero_stage < 0 || options.zero_stage > 3) {
    return tl::unexpected(wrong(fmt::format("--zero-stage {}: want 0, 1, 2 or 3", options.zero_stage)));
  }
  const int64_t world = options.num_nodes * options.gpus_per_node;
  TH_TRY(Batch batch, batch_of(options, world));
  FrameworkLaunch out;
  out.tried = false;
  std::string hosts;
  for (int64_t node = 0; node < options.num_nodes; ++node) {
    const bool known = !options.hosts.empty();
    hosts += fmt::format("{} slots={}\n",
                         known ? options.hosts[static_cast<size_t>(node)] : fmt::format("node-{}", node),
                         options.gpus_per_node);
  }
  const Json config = {{"train_batch_size", batch.global},
                       {"train_micro_batch_size_per_gpu", options.micro_batch},
                       {"gradient_accumulation_steps", batch.accumulation},
                       {"zero_optimization", {{"stage", options.zero_stage}}},
                       {"bf16", {{"enabled", true}}}};
  out.files = {{"hostfile", hosts}, {"ds_config.json", config.dump(2) + "\n"}};
  out.command =
      shell(fmt::format("exec deepspeed --hostfile \"$TH_JOB_DIR/hostfile\" --no_ssh {} \"$@\" --deepspeed "
                        "--deepspeed_config \"$TH_JOB_DIR/ds_config.json\"",
                        kMeeting),
            options);
  out.layout = fmt::format("batch {} = {} a GPU x {} accumulated x {} GPUs, ZeRO stage {}", batch.global,
                           options.micro_batch, batch.accumulation, world, options.zero_stage);
  return out;
}

Result<FrameworkLaunch> megatron(const FrameworkOptions& options) {
  const int64_t world = options.num_nodes * options.gpus_per_node;
  int64_t tensor = options.tensor_parallel;
  if (tensor == 0) {
    for (tensor = std::min(kMaxTensorParallel, options.gpus_per_node); options.gpus_per_node % tensor != 0;)
      --tensor;
  }
  const int64_t pipeline = options.pipeline_parallel;
  if (options.gpus_per_node % tensor != 0) {
    return tl::unexpected(wrong(fmt::format(
        "--tensor-parallel {}: want a divisor of the {} GPUs of a node, since a tensor-parallel group "
        "stays inside of one",
        tensor, options.gpus_per_node)));
  }
  if (world % (tensor * pipeline) != 0) {
    return tl::unexpected(
        wrong(fmt::format("tensor {} x pipeline {} does not divide the {} GPUs ({} nodes x {}): want another "
                          "--tensor-parallel, --pipeline-parallel or --nodes",
                          tensor, pipeline, world, options.num_nodes, options.gpus_per_node)));
  }
  const int64_t data = world / (tensor * pipeline);
  TH_TRY(Batch batch, batch_of(options, data));
  FrameworkLaunch out;
  out.tried = false;
  out.command =
      shell(fmt::format("exec {} \"$@\" --tensor-model-parallel-size {} --pipeline-model-parallel-size {} "
                        "--micro-batch-size {} --global-batch-size {}{}",
                        torchrun_line(options), tensor, pipeline, options.micro_batch, batch.global,
                        tensor > 1 ? " --sequence-parallel" : ""),
            options);
  out.layout = fmt::format("tensor {} x pipeline {} x data {}, batch {} = {} x {} micro-batches x {}", tensor,
                           pipeline, data, batch.global, options.micro_batch, batch.accumulation, data);
  return out;
}

Status check(const FrameworkOptions& options) {
  if (options.arguments.empty()) {
    return tl::unexpected(
        wrong(fmt::format("{}: its arguments are missing: th launch {} ... -- SCRIPT ARGUMENTS",
                          framework_name(options.framework), framework_name(options.framework))));
  }
  if (options.num_nodes < 1 || options.gpus_per_node < 1) {
    return tl::unexpected(wrong(fmt::format("{} nodes with {} GPUs each: want at least one of both",
                                            options.num_nodes, options.gpus_per_node)));
  }
  if (options.micro_batch < 1 || options.global_batch < 0 || options.tensor_parallel < 0 ||
      options.pipeline_parallel < 1) {
    return tl::unexpected(wrong("batches and parallel sizes: want numbers above 0"));
  }
  if (!options.hosts.empty() && static_cast<int64_t>(options.hosts.size()) != options.num_nodes) {
    return tl::unexpected(
        wrong(fmt::format("{} names for {} nodes", options.hosts.size(), options.num_nodes)));
  }
  return {};
}

}  // namespace

Result<Framework> parse_framework(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Framework>(i);
  }
  return tl::unexpected(wrong(
      fmt::format("'{}' is no framework that th can launch: want torchrun, mpirun, deepspeed or megatron",
                  name.substr(0, 80))));
}

std::string framework_name(Framework framework) { return kNames[static_cast<size_t>(framework)]; }

Result<FrameworkLaunch> launch_of(const FrameworkOptions& options, const std::string& gang_script) {
  TH_RETURN_IF_ERROR(check(options));
  FrameworkLaunch out;
  out.layout = fmt::format("{} nodes x {} GPUs", options.num_nodes, options.gpus_per_node);
  switch (options.framework) {
    case Framework::kTorchrun:
      out.command = shell("exec " + torchrun_line(options) + " \"$@\"", options);
      return out;
    case Framework::kMpirun:
      out.rank_per_node = false;
      out.files = {{"gang.py", gang_script}};
      out.command = shell("exec python3 \"$TH_JOB_DIR/gang.py\" mpirun \"$@\"", options);
      return out;
    case Framework::kDeepspeed:
      return deepspeed(options);
    case Framework::kMegatron:
      return megatron(options);
  }
  return fail(Code::kInternal, "no such framework");
}

}  // namespace th::launch
