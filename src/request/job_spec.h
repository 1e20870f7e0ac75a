#pragma once
// What to run on a slice: a gang of one rank a GPU.

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
  std::optional<std::string> slice;  // without one the controller chooses
  int64_t gpus = 1;                  // ranks of the gang
  std::vector<std::string> command;
  std::map<std::string, std::string> env;
  std::optional<std::string> workdir;        // absolute; else the job's folder
  int64_t retries = 2;                       // restarts of the gang after a fault
  std::optional<int64_t> duration_ns;        // time limit; without one, the slice's end
  std::optional<int64_t> memory_bytes;       // limit of one rank
  std::map<std::string, std::string> files;  // path in the job's folder → text
  std::map<std::string, std::string> stage;  // path in the job's folder → absolute path to copy from
  std::optional<std::string> register_as;    // name in the model registry when the job succeeds

  bool operator==(const JobSpec&) const = default;
};

/// Names, counts, environment names, paths that stay in the job's folder. Errors: kInvalidArgument naming the
/// field.
Status validate(const JobSpec& spec);

/// A recipe file (docs/recipes.md): name, gpus, slice, command, env, workdir, retries, time, memory, stage,
/// register, train. `file` names it in messages; stage sources that are relative are taken from `folder`
/// (absolute, the recipe's). With a `train` section, which is not looked into here, the whole text becomes
/// files["recipe.yaml"], and the command defaults to `th-train run recipe.yaml`. Validated. Errors:
/// kInvalidArgument, "llama.yaml:7: retries: ...".
Result<JobSpec> parse_job_recipe(std::string_view yaml, std::string_view file, const std::string& folder);

/// The body of POST /api/v1/jobs (docs/protocols.md). Validated; an unknown field is an error with the
/// nearest known one. Errors: kInvalidArgument naming the field.
Result<JobSpec> job_spec_from_json(const Json& body);
Json to_json(const JobSpec& spec);

}  // namespace th::request
