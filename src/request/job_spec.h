#pragma once
// What to run on a slice: a gang of one rank a GPU, or a batch script with sbatch's options (docs/slurm.md).

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace th::request {

struct JobSpec {
  std::string name;
  std::optional<std::string> slice;  // the partition; without one the controller chooses
  int64_t gpus = 1;                  // of all ranks together
  std::vector<std::string> command;
  std::map<std::string, std::string> env;
  std::optional<std::string> workdir;        // absolute; else the job's folder
  int64_t retries = 2;                       // restarts of the gang after a fault
  std::optional<int64_t> duration_ns;        // time limit; without one, the slice's end
  std::optional<int64_t> memory_bytes;       // limit of one rank
  std::map<std::string, std::string> files;  // path in the job's folder → text
  std::map<std::string, std::string> stage;  // path in the job's folder → absolute path to copy from
  std::string data;  // NAME or NAME@VERSION of a data set, which is staged to data/NAME; empty: none
  std::optional<std::string> register_as;  // name in the model registry when the job succeeds

  // What it takes. 0: as many as it comes to.
  int64_t min_nodes = 0, max_nodes = 0;
  int64_t ntasks = 0;  // ranks; 0: one a GPU
  int64_t ntasks_per_node = 0;
  int64_t gpus_per_node = 0;
  int64_t gpu_milli = 1000;  // thousandths of one GPU, for a job of one task; 1000: whole GPUs
  bool exclusive = false;    // whole nodes, which nobody else gets a part of
  bool batch = false;        // the command runs once, on the first node, and starts the tasks itself
  std::string step_of;       // the job in whose nodes and GPUs this one runs; set by the controller

  // Where.
  std::vector<std::string> nodelist, exclude;  // names of nodes or hosts
  std::string constraint;                      // see parse_constraint: series, racks, leaves, sites
  std::string reservation;                     // a slice that was leased for later
  int64_t max_switches = 0;                    // leaves it may span; 0: any number
  int64_t switches_wait_ns = 0;                // how long it waits for that; 0: as long as it takes
  int64_t segment = 0;                         // nodes of one block that stay under one leaf
  std::string stack;                           // software of the slice that is made for it; empty: base

  // When, and before whom.
  std::string account, qos;  // empty: the submitter's own
  int64_t priority = 0;      // set by hand; 0: as the queue works it out
  int64_t nice = 0;          // taken from the priority
  int64_t begin_ns = 0;      // not before
  int64_t deadline_ns = 0;   // removed when it cannot end by then; 0: none
  std::string dependency;    // see parse_dependencies
  std::string array;         // see parse_array; a task of it has array_job instead
  std::string array_job;     // the array that it is a task of: its first job's id
  int64_t array_index = 0;
  int64_t array_limit = 0;  // tasks of that array that run at the same time; 0: all

  // What becomes of it.
  std::string output, error;  // patterns of files (%j %A %a %x …); empty: th logs only
  std::string signal;         // see parse_end_signal
  bool requeue = true;        // started again when a node was lost
  bool can_rescale = false;   // at a checkpoint, to a multiple of min_gpus up to gpus
  int64_t min_gpus = 0;       // 0: gpus

  bool operator==(const JobSpec&) const = default;
};

/// Names, counts, environment names, paths that stay in the job's folder, options that fit together. Errors:
/// kInvalidArgument naming the field.
Status validate(const JobSpec& spec);

/// A recipe file (docs/recipes.md): name, gpus, slice, command, env, workdir, retries, time, memory, stage,
/// register, train, and the options of docs/slurm.md. `file` names it in messages; stage sources that are
/// relative are taken from `folder` (absolute, the recipe's). With a `train` section, which is not looked
/// into here, the whole text becomes files["recipe.yaml"], and the command defaults to `th-train run
/// recipe.yaml`; only its data.set is taken, as `data`. Validated. Errors: kInvalidArgument, "llama.yaml:7:
/// retries: ...".
Result<JobSpec> parse_job_recipe(std::string_view yaml, std::string_view file, const std::string& folder);

/// The body of POST /api/v1/jobs (docs/protocols.md). Validated; an unknown field is an error with the
/// nearest known one. Errors: kInvalidArgument naming the field.
Result<JobSpec> job_spec_from_json(const Json& body);
/// Options that are at their defaults are left out.
Json to_json(const JobSpec& spec);

}  // namespace th::request
