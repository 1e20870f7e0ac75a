#pragma once
// What a framework's own launcher needs on a slice: its command in each rank, its files, its parallel layout
// from the slice's shape. Pure. Sources: torchrun, https://docs.pytorch.org/docs/stable/elastic/run.html;
// DeepSpeed's launcher and configuration, https://www.deepspeed.ai/getting-started/ and /docs/config-json/;
// Megatron-LM's arguments, megatron/training/arguments.py of https://github.com/NVIDIA/Megatron-LM.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::launch {

enum class Framework { kTorchrun, kMpirun, kDeepspeed, kMegatron };
/// Errors: kInvalidArgument with the nearest.
Result<Framework> parse_framework(const std::string& name);
std::string framework_name(Framework framework);

struct FrameworkOptions {
  Framework framework = Framework::kTorchrun;
  std::vector<std::string> arguments;  // of the framework's launcher, the script among them
  std::vector<std::string> hosts;      // names of the nodes, in order; empty: not known yet
  int64_t num_nodes = 1, gpus_per_node = 1;
  int64_t micro_batch = 1;   // sequences that a GPU takes at once: DeepSpeed, Megatron
  int64_t global_batch = 0;  // of a step; 0: the least, micro_batch on each data-parallel rank
  int64_t zero_stage = 1;    // DeepSpeed: 0 to 3
  int64_t tensor_parallel = 0, pipeline_parallel = 1;  // Megatron; 0: all GPUs of a node, up to 8
};

struct FrameworkLaunch {
  std::vector<std::string> command;          // of each rank
  std::map<std::string, std::string> files;  // path in the job's folder → text
  bool rank_per_node = true;                 // else one a GPU
  bool tried = true;                         // false: our tests check what is generated and do not run it
  std::string layout;                        // for a person: "tensor 8 x pipeline 1 x data 2"
};

/// `gang_script`: the text of recipes/mpi/gang.py, which mpirun takes along. Errors: kInvalidArgument, with
/// what would fit.
Result<FrameworkLaunch> launch_of(const FrameworkOptions& options, const std::string& gang_script);

}  // namespace th::launch
