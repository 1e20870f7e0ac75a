#include "launch/rendezvous.h"

#include <fmt/format.h>

#include <charconv>
#include <unordered_map>

#include "base/text.h"

namespace th::launch {
namespace {

constexpr int kFirstPort = 20'000;
constexpr int kPorts = 10'000;

/// Where the ranks of a gang are: nodes are its VMs, in the order of their first rank.
struct Layout {
  std::vector<int> node;   // of each rank
  std::vector<int> local;  // rank on its node
  std::vector<int> ranks;  // on each node
  std::string node_list;

  explicit Layout(const GangSpec& gang) {
    std::unordered_map<std::string_view, int> known;
    std::vector<std::string> names;
    for (const RankPlace& place : gang.ranks) {
      const auto [at, is_new] = known.emplace(place.vm, static_cast<int>(names.size()));
      if (is_new) names.push_back(place.node), ranks.push_back(0);
      node.push_back(at->second), local.push_back(ranks[at->second]++);
    }
    node_list = compress_nodes(names);
  }
};

std::string join_numbers(const std::vector<int>& numbers) {
  return fmt::format("{}", fmt::join(numbers, ","));
}

/// "demo-12" → {"demo-", 12}; no number (or one with leading zeros, which the short form would lose): {name,
/// -1}.
std::pair<std::string_view, int> split_number(std::string_view name) {
  size_t digits = name.find_last_not_of("0123456789") + 1;
  std::string_view tail = name.substr(digits);
  int number = -1;
  if (tail.empty() || tail.size() > 8 || (tail.size() > 1 && tail[0] == '0')) return {name, -1};
  std::from_chars(tail.data(), tail.data() + tail.size(), number);
  return {name.substr(0, digits), number};
}

}  // namespace

std::string compress_nodes(const std::vector<std::string>& nodes) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < nodes.size();) {
    auto [prefix, first] = split_number(nodes[i]);
    if (first < 0) {
      parts.push_back(nodes[i++]);
      continue;
    }
    std::vector<std::string> ranges;
    size_t members = 0;
    while (i < nodes.size()) {
      auto [next_prefix, low] = split_number(nodes[i]);
      if (low < 0 || next_prefix != prefix) break;
      int high = low;
      for (++i, ++members; i < nodes.size(); ++i, ++members, ++high) {
        auto [p, n] = split_number(nodes[i]);
        if (p != prefix || n != high + 1) break;
      }
      ranges.push_back(low == high ? fmt::format("{}", low) : fmt::format("{}-{}", low, high));
    }
    parts.push_back(members == 1 ? fmt::format("{}{}", prefix, ranges[0])
                                 : fmt::format("{}[{}]", prefix, join(ranges, ",")));
  }
  return join(parts, ",");
}

namespace {

std::map<std::string, std::string> env_of(const GangSpec& gang, const Layout& layout, int rank) {
  TH_CHECK(rank >= 0 && static_cast<size_t>(rank) < gang.ranks.size());
  const RankPlace& place = gang.ranks[rank];
  const int node = layout.node[rank];
  std::string world = std::to_string(gang.ranks.size());
  std::string node_index = std::to_string(node), local = std::to_string(layout.local[rank]),
              self = std::to_string(rank);
  return {
      {"RANK", self},
      {"WORLD_SIZE", world},
      {"LOCAL_RANK", local},
      {"LOCAL_WORLD_SIZE", std::to_string(layout.ranks[node])},
      {"GROUP_RANK", node_index},
      {"MASTER_ADDR", gang.ranks[0].address},
      {"MASTER_PORT", std::to_string(gang.master_port)},
      {"SLURM_JOB_ID", gang.job.starts_with("job-") ? gang.job.substr(4) : gang.job},  // a number in Slurm
      {"SLURM_JOB_NAME", gang.name},
      {"SLURM_NTASKS", world},
      {"SLURM_NNODES", std::to_string(layout.ranks.size())},
      {"SLURM_NODEID", node_index},
      {"SLURM_PROCID", self},
      {"SLURM_LOCALID", local},
      {"SLURM_JOB_NODELIST", layout.node_list},
      {"SLURM_STEP_ID", "0"},
      {"TH_JOB_ID", gang.job},
      {"TH_ATTEMPT", std::to_string(gang.attempt)},
      {"TH_NODE", place.node},
      {"TH_GPUS", join_numbers(place.gpus)},
      {"CUDA_VISIBLE_DEVICES", join_numbers(place.gpus)},
      {"OMP_NUM_THREADS", std::to_string(gang.omp_threads)},
  };
}

}  // namespace

std::map<std::string, std::string> rendezvous_env(const GangSpec& gang, int rank) {
  return env_of(gang, Layout(gang), rank);
}

std::vector<node::Task> gang_tasks(const GangSpec& gang) {
  const Layout layout(gang);
  std::vector<node::Task> tasks;
  tasks.reserve(gang.ranks.size());
  for (size_t rank = 0; rank < gang.ranks.size(); ++rank) {
    node::Task task;
    task.id = {gang.job, gang.attempt, static_cast<int>(rank)};
    task.argv = gang.argv;
    task.env = env_of(gang, layout, static_cast<int>(rank));
    if (auto threads = gang.env.find("OMP_NUM_THREADS"); threads != gang.env.end()) {
      task.env["OMP_NUM_THREADS"] = threads->second;
    }
    task.env.insert(gang.env.begin(), gang.env.end());  // what stands already, the rendezvous, wins
    for (const auto& [name, value] : gang.fixed_env) task.env[name] = value;
    task.cwd = gang.workdir;
    task.files = gang.files;
    task.stage = gang.stage;
    task.gpus = gang.ranks[rank].gpus;
    task.memory_bytes = gang.memory_bytes;
    task.grace_ms = gang.grace_ms;
    if (rank == 0 && !gang.metrics_file.empty()) task.metrics_file = gang.metrics_file;
    if (rank == 0) task.ready_url = gang.ready_url;
    tasks.push_back(std::move(task));
  }
  return tasks;
}

int choose_port(std::string_view salt, const std::set<int>& taken) {
  TH_CHECK(taken.size() < kPorts);
  uint32_t hash = 0;
  std::string digest = sha256_hex(salt);
  std::from_chars(digest.data(), digest.data() + 8, hash, 16);
  int port = kFirstPort + static_cast<int>(hash % kPorts);
  while (taken.contains(port)) port = kFirstPort + (port - kFirstPort + 1) % kPorts;
  return port;
}

}  // namespace th::launch
