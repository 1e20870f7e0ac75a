#include "launch/slurm/conf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <tuple>

#include "base/text.h"
#include "launch/rendezvous.h"

namespace th::launch {
namespace {

constexpr const char* kHead = "# Made by th slurm topology; made again when the fleet changes.\n";

using Members = std::vector<std::pair<std::string, std::vector<std::string>>>;  // in the order of the fabric

void add(Members& members, const std::string& of, const std::string& member) {
  auto it = std::ranges::find(members, of, &Members::value_type::first);
  if (it == members.end()) it = members.insert(members.end(), {of, {}});
  if (std::ranges::find(it->second, member) == it->second.end()) it->second.push_back(member);
}

std::string topology(const std::vector<SlurmHost>& hosts) {
  Members leaves, spines;
  std::vector<std::string> tops;
  for (const SlurmHost& host : hosts) {
    add(leaves, host.leaf, host.name);
    if (!host.spine.empty()) add(spines, host.spine, host.leaf);
    const std::string& top = host.spine.empty() ? host.leaf : host.spine;
    if (std::ranges::find(tops, top) == tops.end()) tops.push_back(top);
  }
  std::string text = kHead;
  for (const auto& [leaf, names] : leaves) {
    text += fmt::format("SwitchName={} Nodes={}\n", leaf, compress_nodes(names));
  }
  for (const auto& [spine, below] : spines) {
    text += fmt::format("SwitchName={} Switches={}\n", spine, compress_nodes(below));
  }
  // Slurm starts no job across trees that do not meet.
  if (tops.size() > 1) text += fmt::format("SwitchName=core Switches={}\n", compress_nodes(tops));
  return text;
}

std::string gres_text(const SlurmHost& host) { return fmt::format("gpu:{}:{}", host.gpu_type, host.gpus); }

}  // namespace

SlurmConf slurm_conf(const std::vector<SlurmHost>& hosts) {
  using Kind = std::tuple<std::string, int64_t, int64_t, int64_t>;
  std::map<Kind, std::vector<const SlurmHost*>> kinds;
  for (const SlurmHost& host : hosts) {
    kinds[{host.gpu_type, host.gpus, host.cpus, host.memory_bytes}].push_back(&host);
  }
  SlurmConf conf{topology(hosts), kHead, kHead};
  for (const auto& [kind, alike] : kinds) {
    const SlurmHost& one = *alike.front();
    std::vector<std::string> list;
    for (const SlurmHost* host : alike) list.push_back(host->name);
    const std::string names = compress_nodes(list);
    std::string size;
    if (one.cpus > 0) size += fmt::format(" CPUs={}", one.cpus);
    if (one.memory_bytes > 0) size += fmt::format(" RealMemory={}", one.memory_bytes >> 20);
    conf.nodes += fmt::format("NodeName={}{}", names, size);
    if (one.gpus > 0) {
      conf.nodes += " Gres=" + gres_text(one);
      const bool devices = one.gpu_type != "local";
      const std::string last = one.gpus == 1 ? "0" : fmt::format("[0-{}]", one.gpus - 1);
      conf.gres += fmt::format(
          "NodeName={} Name=gpu Type={} {}\n", names, one.gpu_type,
          devices ? "File=/dev/nvidia" + last : fmt::format("Count={} Flags=CountOnly", one.gpus));
    }
    conf.nodes += " State=CLOUD\n";
  }
  return conf;
}

std::string gpu_type_of(const std::string& accelerator) {
  for (std::string word : split(accelerator, ' ')) {
    const bool has_digit = std::ranges::any_of(word, [](unsigned char c) { return std::isdigit(c) != 0; });
    const bool begins = !word.empty() && std::isalpha(static_cast<unsigned char>(word[0])) != 0;
    if (!has_digit || !begins || word.find_first_of("=:,[]") != std::string::npos) continue;
    std::ranges::transform(word, word.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return word;
  }
  return "local";
}

}  // namespace th::launch
