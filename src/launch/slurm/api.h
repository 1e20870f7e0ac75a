#pragma once
// A gang as slurmrestd wants it, and what slurmrestd says about jobs. Pure. API v0.0.38, which Debian 12's
// Slurm 22.05 speaks: https://slurm.schedmd.com/archive/slurm-22.05.8/rest_api.html; that version takes
// `nodelist` and refuses `required_nodes`.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "launch/launcher.h"

namespace th::launch {

/// Where a gang goes in Slurm's words; empty: Slurm's default.
struct SlurmQueue {
  std::string partition, account, qos;
  bool operator==(const SlurmQueue&) const = default;
};

/// Files of one attempt, in the job's folder.
struct AttemptFiles {
  AttemptFiles(const std::filesystem::path& job_folder, int attempt);
  std::filesystem::path log(int rank) const;
  std::filesystem::path metrics_from() const;  // where the attempt's lines begin in the metrics file
  std::filesystem::path exit(int rank) const;  // "CODE NANOSECONDS", written when the rank has ended
  std::filesystem::path folder, hosts, wrapper;
};

/// "th:job-7.2": how the job is found again.
std::string slurm_job_name(const GangSpec& gang);
/// The rank's place in the gang, its share of the GPUs that Slurm gave the node, its exit code in a file.
std::string wrapper_script(const GangSpec& gang, const AttemptFiles& files,
                           const std::filesystem::path& job_folder);
/// The body of /job/submit. One task a rank on exactly the nodes of our placement. Environment: gang.env,
/// TH_* and the meeting place; `path` is PATH unless gang.env has one.
Json submit_body(const GangSpec& gang, const SlurmQueue& queue, const std::filesystem::path& job_folder,
                 const std::string& path);

struct SlurmJob {
  int64_t id = 0;
  std::string name;
  std::string state;   // "RUNNING"
  std::string reason;  // "NonZeroExitCode"
  int64_t wait_status = 0;
  int64_t restarts = 0;
  int64_t start_ns = 0, end_ns = 0;
  bool operator==(const SlurmJob&) const = default;

  bool is_pending() const;
  bool has_ended() const;
};

/// Of /jobs. Errors: kInvalidArgument, naming the field.
Result<std::vector<SlurmJob>> parse_jobs(const Json& answer);
/// Of /job/submit: the job's id. Errors: kFailedPrecondition with Slurm's own words.
Result<int64_t> parse_submitted(const Json& answer);
/// What `errors` says, "; " between; empty when there is none.
std::string errors_of(const Json& answer);

/// "3 1700000000000000000" → {code, time}. Errors: kInvalidArgument.
struct RankExit {
  int code = 0;
  int64_t at_ns = 0;
};
Result<RankExit> parse_exit(std::string_view text);

}  // namespace th::launch
