#include "launch/slurm/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "base/units.h"

namespace th::launch {
namespace {

/// For bash: in single quotes.
std::string shell_word(std::string_view text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

/// How many ranks each node has, by its name.
std::map<std::string, int> ranks_on_nodes(const GangSpec& gang) {
  std::map<std::string, int> ranks;
  for (const RankPlace& place : gang.ranks) ++ranks[place.node];
  return ranks;
}

std::string batch_script(const GangSpec& gang, const AttemptFiles& files) {
  std::string command;
  for (const std::string& word : gang.argv) command += " " + shell_word(word);
  return fmt::format(
      "#!/bin/bash\n"
      "export SLURM_HOSTFILE={}\n"
      "exec srun --distribution=arbitrary --ntasks={} --kill-on-bad-exit=1 --mpi=none --output={} bash "
      "{}{}\n",
      shell_word(files.hosts.string()), gang.ranks.size(), shell_word((files.folder / "%t.log").string()),
      shell_word(files.wrapper.string()), command);
}

}  // namespace

AttemptFiles::AttemptFiles(const std::filesystem::path& job_folder, int attempt)
    : folder(job_folder / "logs" / std::to_string(attempt)),
      hosts(folder / "hosts"),
      wrapper(folder / "rank.sh") {}
std::filesystem::path AttemptFiles::log(int rank) const { return folder / fmt::format("{}.log", rank); }
std::filesystem::path AttemptFiles::exit(int rank) const { return folder / fmt::format("{}.exit", rank); }

std::filesystem::path AttemptFiles::metrics_from() const { return folder / "metrics_from"; }

std::string slurm_job_name(const GangSpec& gang) { return fmt::format("th:{}.{}", gang.job, gang.attempt); }

std::string wrapper_script(const GangSpec& gang, const AttemptFiles& files,
                           const std::filesystem::path& job_folder) {
  std::string on_node, first_gpu, gpus;
  for (const auto& [node, count] : ranks_on_nodes(gang))
    on_node += fmt::format(" [{}]={}", shell_word(node), count);
  std::map<std::string, size_t> next;
  for (const RankPlace& place : gang.ranks) {
    size_t& at = next[place.node];
    first_gpu += fmt::format(" {}", at);
    gpus += fmt::format(" {}", place.gpus.size());
    at += place.gpus.size();
  }
  std::string metrics;
  if (!gang.metrics_file.empty()) {
    metrics = fmt::format("if [ \"$RANK\" = 0 ]; then export TH_METRICS={}; fi\n",
                          shell_word((job_folder / gang.metrics_file).string()));
  }
  return fmt::format(
      "declare -A on_node=({})\n"
      "first_gpu=({})\n"
      "gpus=({})\n"
      "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID "
      "GROUP_RANK=$SLURM_NODEID\n"
      "export LOCAL_WORLD_SIZE=${{on_node[$SLURMD_NODENAME]}}\n"
      "devices=(${{CUDA_VISIBLE_DEVICES//,/ }})\n"
      "mine=(\"${{devices[@]:${{first_gpu[RANK]}}:${{gpus[RANK]}}}}\")\n"
      "export CUDA_VISIBLE_DEVICES=$(IFS=,; echo \"${{mine[*]}}\")\n"
      "export TH_GPUS=$CUDA_VISIBLE_DEVICES\n"
      "{}"
      "trap : TERM  # the rank's own end is what counts\n"
      "\"$@\"\n"
      "code=$?\n"
      "echo \"$code $(date +%s%N)\" > {}/$RANK.exit\n"
      "exit $code\n",
      on_node, first_gpu, gpus, metrics, shell_word(files.folder.string()));
}

Json submit_body(const GangSpec& gang, const SlurmQueue& queue, const std::filesystem::path& job_folder,
                 const std::string& path) {
  const AttemptFiles files(job_folder, gang.attempt);
  const auto ranks = ranks_on_nodes(gang);
  std::vector<std::string> nodes;
  std::map<std::string, size_t> gpus;
  size_t most_gpus = 0;
  int most_ranks = 0;
  for (const auto& [node, count] : ranks) {
    nodes.push_back(node);
    most_ranks = std::max(most_ranks, count);
  }
  for (const RankPlace& place : gang.ranks)
    most_gpus = std::max(most_gpus, gpus[place.node] += place.gpus.size());
  Json environment = Json::object();
  environment["PATH"] = path;
  environment["OMP_NUM_THREADS"] = std::to_string(gang.omp_threads);
  for (const auto& [name, value] : gang.env) environment[name] = value;
  environment["MASTER_ADDR"] = gang.ranks[0].node;
  environment["MASTER_PORT"] = std::to_string(gang.master_port);
  environment["TH_JOB_ID"] = gang.job;
  environment["TH_ATTEMPT"] = std::to_string(gang.attempt);
  environment["TH_JOB_DIR"] = job_folder.string();
  for (const auto& [name, value] : gang.fixed_env) environment[name] = value;
  Json job = {{"name", slurm_job_name(gang)},
              {"nodes", {nodes.size(), nodes.size()}},
              {"nodelist", join(nodes, ",")},
              {"tasks", gang.ranks.size()},
              {"current_working_directory", gang.workdir.value_or(job_folder.string())},
              {"standard_output", (files.folder / "batch.log").string()},
              {"standard_error", (files.folder / "batch.log").string()},
              {"environment", std::move(environment)}};
  if (!queue.partition.empty()) job["partition"] = queue.partition;
  if (!queue.account.empty()) job["account"] = queue.account;
  if (!queue.qos.empty()) job["qos"] = queue.qos;
  if (most_gpus > 0) job["gpus_per_node"] = most_gpus;
  constexpr int64_t kMiB = 1 << 20;
  if (gang.memory_bytes > 0) job["memory_per_node"] = (gang.memory_bytes * most_ranks + kMiB - 1) / kMiB;
  return {{"job", std::move(job)}, {"script", batch_script(gang, files)}};
}

bool SlurmJob::is_pending() const {
  static constexpr std::array<std::string_view, 5> kPending = {"PENDING", "CONFIGURING", "REQUEUED",
                                                               "REQUEUE_HOLD", "RESV_DEL_HOLD"};
  return std::find(kPending.begin(), kPending.end(), state) != kPending.end();
}

bool SlurmJob::has_ended() const {
  static constexpr std::array<std::string_view, 9> kEnded = {"COMPLETED", "FAILED",    "CANCELLED",
                                                             "TIMEOUT",   "NODE_FAIL", "OUT_OF_MEMORY",
                                                             "BOOT_FAIL", "DEADLINE",  "PREEMPTED"};
  return std::find(kEnded.begin(), kEnded.end(), state) != kEnded.end();
}

Result<std::vector<SlurmJob>> parse_jobs(const Json& answer) {
  if (!answer.is_object() || !answer.contains("jobs") || !answer["jobs"].is_array())
    return fail(Code::kInvalidArgument, "slurmrestd: field 'jobs': want a list");
  std::vector<SlurmJob> jobs;
  for (const Json& item : answer["jobs"]) {
    SlurmJob job;
    TH_TRY(job.id, get_int(item, "job_id"));
    TH_TRY(job.name, get_string(item, "name", ""));
    TH_TRY(job.state, get_string(item, "job_state"));
    TH_TRY(job.reason, get_string(item, "state_reason", ""));
    TH_TRY(job.restarts, get_int(item, "restart_cnt", 0));
    // Absent numbers are null there.
    const auto number = [&](const char* field) {
      const auto it = item.find(field);
      return it != item.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
    };
    job.wait_status = number("exit_code");
    constexpr int64_t kMaxSeconds = int64_t{1} << 33;
    job.start_ns = std::clamp<int64_t>(number("start_time"), 0, kMaxSeconds) * kSecond;
    job.end_ns = std::clamp<int64_t>(number("end_time"), 0, kMaxSeconds) * kSecond;
    jobs.push_back(std::move(job));
  }
  return jobs;
}

std::string errors_of(const Json& answer) {
  std::vector<std::string> errors;
  if (!answer.is_object() || !answer.contains("errors") || !answer["errors"].is_array()) return "";
  for (const Json& item : answer["errors"]) {
    std::vector<std::string> parts;
    for (const char* field : {"error", "description"}) {
      if (item.is_object() && item.contains(field) && item[field].is_string()) parts.push_back(item[field]);
    }
    errors.push_back(join(parts, ": "));
  }
  return join(errors, "; ");
}

Result<int64_t> parse_submitted(const Json& answer) {
  if (const std::string errors = errors_of(answer); !errors.empty())
    return fail(Code::kFailedPrecondition, "Slurm refuses the job: " + errors);
  return get_int(answer, "job_id");
}

Result<RankExit> parse_exit(std::string_view text) {
  RankExit exit;
  const char* end = text.data() + text.size();
  const auto code = std::from_chars(text.data(), end, exit.code);
  if (code.ec == std::errc() && code.ptr != end && *code.ptr == ' ' && exit.code >= 0 && exit.code < 256) {
    if (std::from_chars(code.ptr + 1, end, exit.at_ns).ec == std::errc() && exit.at_ns >= 0) return exit;
  }
  return fail(Code::kInvalidArgument, "an exit file: want a code and a time");
}

}  // namespace th::launch
