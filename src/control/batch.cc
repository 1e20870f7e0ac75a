#include "control/batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "launch/rendezvous.h"
#include "request/sbatch.h"

namespace th::control {
namespace {

using ledger::RankPlace;

/// "2(x3),1": how many tasks each node has.
std::string tasks_per_node(const std::vector<int64_t>& counts) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < counts.size();) {
    size_t end = i;
    while (end < counts.size() && counts[end] == counts[i]) ++end;
    parts.push_back(end - i > 1 ? fmt::format("{}(x{})", counts[i], end - i) : std::to_string(counts[i]));
    i = end;
  }
  return join(parts, ",");
}

std::vector<int64_t> counts_of(const std::vector<RankPlace>& places, const std::vector<RankPlace>& ranks) {
  std::vector<int64_t> out;
  for (const RankPlace& place : places) {
    out.push_back(std::ranges::count_if(ranks, [&](const RankPlace& rank) { return rank.vm == place.vm; }));
  }
  return out;
}

}  // namespace

std::string quoted(const std::string& word) {
  std::string out = "'";
  for (char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string number_of_job(const std::string& id) { return id.starts_with("job-") ? id.substr(4) : id; }

std::vector<RankPlace> places_of(const ledger::Job& job) {
  std::vector<RankPlace> out;
  auto add = [&](const RankPlace& place) {
    auto there = std::ranges::find(out, place.vm, &RankPlace::vm);
    if (there == out.end()) there = out.insert(out.end(), {place.vm, {}});
    there->gpus.insert(there->gpus.end(), place.gpus.begin(), place.gpus.end());
  };
  for (const ledger::Rank& rank : job.ranks) add(rank.place);
  for (const RankPlace& place : job.reserved) add(place);
  return out;
}

Result<std::vector<RankPlace>> lay_out(const std::vector<RankPlace>& places, int64_t ntasks,
                                       int64_t per_node) {
  const auto nodes = static_cast<int64_t>(places.size());
  if (per_node > 0 && per_node * nodes < ntasks) {
    return fail(Code::kUnsatisfiable,
                fmt::format("{} tasks are more than {} on each of {} nodes", ntasks, per_node, nodes));
  }
  std::vector<RankPlace> out;
  for (int64_t node = 0; node < nodes; ++node) {
    const RankPlace& place = places[static_cast<size_t>(node)];
    const int64_t left = ntasks - static_cast<int64_t>(out.size());
    // Evenly, the first ones one more; a node that gets none stays idle.
    const int64_t here = per_node > 0 ? std::min(per_node, left) : (left + nodes - node - 1) / (nodes - node);
    const auto gpus = static_cast<int64_t>(place.gpus.size());
    for (int64_t task = 0; task < here; ++task) {
      RankPlace rank{place.vm, {}};
      const int64_t first = task * gpus / here, last = std::max((task + 1) * gpus / here, first + 1);
      for (int64_t i = first; i < last && gpus > 0; ++i)
        rank.gpus.push_back(place.gpus[static_cast<size_t>(i % gpus)]);
      out.push_back(std::move(rank));
    }
  }
  return out;
}

std::vector<std::string> batch_argv(const request::JobSpec& spec) {
  const auto script = std::ranges::find(spec.command, request::kBatchFile);
  std::string text =
      "if [ -n \"$TH_OUTPUT\" ]; then echo \"output goes to $TH_OUTPUT\"; exec >\"$TH_OUTPUT\" 2>&1; fi\n"
      "if [ -n \"$TH_ERROR\" ]; then exec 2>\"$TH_ERROR\"; fi\n"
      "chmod +x \"$TH_JOB_DIR/bin/srun\"; PATH=\"$TH_JOB_DIR/bin:$PATH\"; export PATH\nexec";
  for (auto word = spec.command.begin(); word != script; ++word) text += " " + quoted(*word);
  text += fmt::format(" \"$TH_JOB_DIR/{}\" \"$@\"", request::kBatchFile);
  std::vector<std::string> argv = {"/bin/sh", "-c", std::move(text), request::kBatchFile};
  if (script != spec.command.end()) argv.insert(argv.end(), script + 1, spec.command.end());
  return argv;
}

std::map<std::string, std::string> batch_env(const ledger::Job& job, const request::JobSpec& spec,
                                             const BatchNames& names) {
  const std::vector<RankPlace> places = places_of(job);
  const int64_t ntasks = std::max<int64_t>(1, spec.ntasks);
  std::vector<std::string> nodes;
  int64_t gpus = 0;
  for (const RankPlace& place : places)
    nodes.push_back(place.vm), gpus += static_cast<int64_t>(place.gpus.size());
  const std::string id = number_of_job(job.submitted.job), list = launch::compress_nodes(nodes),
                    count = std::to_string(nodes.size());
  std::map<std::string, std::string> env = {{"SLURM_JOBID", id},
                                            {"SLURM_JOB_PARTITION", names.partition},
                                            {"SLURM_CLUSTER_NAME", names.cluster},
                                            {"SLURM_JOB_NUM_NODES", count},
                                            {"SLURM_NNODES", count},
                                            {"SLURM_JOB_NODELIST", list},
                                            {"SLURM_NODELIST", list},
                                            {"SLURM_NTASKS", std::to_string(ntasks)},
                                            {"SLURM_NPROCS", std::to_string(ntasks)},
                                            {"SLURM_GPUS", std::to_string(gpus)}};
  if (!places.empty()) {
    const std::string mine = fmt::format("{}", fmt::join(places[0].gpus, ","));
    env["SLURM_JOB_GPUS"] = env["CUDA_VISIBLE_DEVICES"] = env["TH_GPUS"] = mine;
    env["SLURM_GPUS_ON_NODE"] = std::to_string(places[0].gpus.size());
  }
  if (auto ranks = lay_out(places, ntasks, spec.ntasks_per_node)) {
    env["SLURM_TASKS_PER_NODE"] = tasks_per_node(counts_of(places, *ranks));
  }
  auto put = [&](const char* name, int64_t value) {
    if (value > 0) env[name] = std::to_string(value);
  };
  put("SLURM_NTASKS_PER_NODE", spec.ntasks_per_node);
  put("SLURM_GPUS_PER_NODE", spec.gpus_per_node);
  put("SLURM_RESTART_COUNT", job.attempt - 1);
  if (!spec.account.empty()) env["SLURM_JOB_ACCOUNT"] = spec.account;
  if (!spec.qos.empty()) env["SLURM_JOB_QOS"] = spec.qos;
  if (!spec.reservation.empty()) env["SLURM_JOB_RESERVATION"] = spec.reservation;
  if (!spec.array_job.empty()) {
    env["SLURM_ARRAY_JOB_ID"] = number_of_job(spec.array_job);
    env["SLURM_ARRAY_TASK_ID"] = std::to_string(spec.array_index);
    if (!names.array.empty()) {
      env["SLURM_ARRAY_TASK_COUNT"] = std::to_string(names.array.size());
      env["SLURM_ARRAY_TASK_MIN"] = std::to_string(names.array.front());
      env["SLURM_ARRAY_TASK_MAX"] = std::to_string(names.array.back());
    }
  }
  return env;
}

std::string expand_pattern(const std::string& pattern, const ledger::Job& job, const request::JobSpec& spec,
                           const std::string& node) {
  if (pattern.find('\\') != std::string::npos) {
    std::string plain = pattern;
    std::erase(plain, '\\');
    return plain;
  }
  const std::string id = number_of_job(job.submitted.job);
  const bool task = !spec.array_job.empty();
  auto value = [&](char letter) -> std::optional<std::string> {
    switch (letter) {
      case 'j':
      case 'J':
        return id;
      case 'A':
        return task ? number_of_job(spec.array_job) : id;
      case 'a':
        return task ? std::to_string(spec.array_index) : "4294967294";  // Slurm's NO_VAL
      case 'x':
        return job.submitted.name;
      case 'N':
        return node;
      case 'n':
      case 't':
        return "0";
      case 's':
        return "batch";
      case 'u': {
        const auto user = spec.env.find("SLURM_JOB_USER");
        return user == spec.env.end() ? "user" : user->second;
      }
      case '%':
        return "%";
      default:
        return std::nullopt;
    }
  };
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    size_t at = i + 1, width = 0;
    while (at < pattern.size() && at < i + 3 && pattern[at] >= '0' && pattern[at] <= '9') {
      width = width * 10 + static_cast<size_t>(pattern[at++] - '0');
    }
    const auto text = pattern[i] == '%' && at < pattern.size() ? value(pattern[at]) : std::nullopt;
    if (!text) {
      out += pattern[i];
      continue;
    }
    const bool number = text->find_first_not_of("0123456789") == std::string::npos;
    if (number && text->size() < std::min<size_t>(width, 10))
      out.append(std::min<size_t>(width, 10) - text->size(), '0');
    out += *text;
    i = at;
  }
  return out;
}

}  // namespace th::control
