#pragma once
// Slurm's files from a fleet: topology.conf, gres.conf and the node lines of slurm.conf. Pure. Formats:
// https://slurm.schedmd.com/archive/slurm-22.05.8/topology.conf.html and /gres.conf.html.

#include <cstdint>
#include <string>
#include <vector>

namespace th::launch {

struct SlurmHost {
  std::string name, leaf;
  std::string spine;     // of the leaf; empty: none is named
  std::string gpu_type;  // "h100"; "local": shares of a processor, which have no device files
  int64_t gpus = 0, cpus = 0, memory_bytes = 0;  // 0: not known
};

struct SlurmConf {
  std::string topology, gres, nodes;
};

/// Hosts in the order of the fabric. Switches are a tree: leaves, spines, and a core above what hangs on
/// several. Nodes are State=CLOUD, so that they come when a job needs them. Lines are of hosts that are
/// alike.
SlurmConf slurm_conf(const std::vector<SlurmHost>& hosts);

/// "NVIDIA H100 SXM5 80 GB" → "h100"; without such a word "local".
std::string gpu_type_of(const std::string& accelerator);

}  // namespace th::launch
