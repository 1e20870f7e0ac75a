#pragma once
// Batch scripts and their steps as gangs: what is run where, and with which of Slurm's variables. Pure.

#include <map>
#include <string>
#include <vector>

#include "ledger/state.h"
#include "request/job_spec.h"

namespace th::control {

/// "12" of "job-12".
std::string number_of_job(const std::string& id);

/// One word of a shell command.
std::string quoted(const std::string& word);

/// Every place that the last attempt holds, in node order: its ranks' and those kept for steps; GPUs of one
/// node together.
std::vector<ledger::RankPlace> places_of(const ledger::Job& job);

/// One place a rank: `ntasks` over the nodes in order, `per_node` on each (0: as evenly as it goes); the GPUs
/// of a node are dealt out in order, and shared where there are more ranks than GPUs. Errors: kUnsatisfiable.
Result<std::vector<ledger::RankPlace>> lay_out(const std::vector<ledger::RankPlace>& places, int64_t ntasks,
                                               int64_t per_node);

/// What a batch job's one process runs: sends its output where it is to go, makes `srun` known, becomes the
/// script's interpreter.
std::vector<std::string> batch_argv(const request::JobSpec& spec);
/// srun in the script's PATH.
inline constexpr const char* kSrunFile = "bin/srun";
inline constexpr const char* kSrunText = "#!/bin/sh\nexec th srun \"$@\"\n";

struct BatchNames {
  std::string partition, cluster;
  std::vector<int64_t> array;  // indices of all tasks of its array
};
/// The variables of a batch script, as man sbatch lists them under "output environment variables".
std::map<std::string, std::string> batch_env(const ledger::Job& job, const request::JobSpec& spec,
                                             const BatchNames& names);

/// "out-%j.txt" → "out-12.txt": %j %J %A %a %x %N %n %t %s %u and %%, with widths as in %4j; a backslash
/// turns that off. `node`: the one that the script runs on.
std::string expand_pattern(const std::string& pattern, const ledger::Job& job, const request::JobSpec& spec,
                           const std::string& node);

}  // namespace th::control
