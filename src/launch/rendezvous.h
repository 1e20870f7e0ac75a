#pragma once
// The environment in which the ranks of a gang find each other (docs/protocols.md). Pure.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "launch/launcher.h"

namespace th::launch {

/// RANK … TH_GPUS and OMP_NUM_THREADS of one rank, without the submitter's own variables. TH_JOB_DIR and
/// TH_METRICS are added by the node, which alone knows where the job's folder lies. Pre: rank <
/// gang.ranks.size(). Nodes are numbered in the order in which their first rank comes; rank 0's address is
/// the master's.
std::map<std::string, std::string> rendezvous_env(const GangSpec& gang, int rank);

/// Every task of the gang, in rank order: gang.env overlaid with rendezvous_env, `metrics_file` and
/// `ready_url` for rank 0 only.
std::vector<node::Task> gang_tasks(const GangSpec& gang);

/// "demo-[0-2,5],gpu7": Slurm's short form of node names, in the order given.
std::string compress_nodes(const std::vector<std::string>& nodes);

/// A port in 20000–29999 (below the kernel's ephemeral ports) that is not in `taken`. The same `salt` gives
/// the same port; salt with something that differs between controllers of one machine and between attempts:
/// "STATE-token/job-1.2/master". Pre: taken.size() < 10000.
int choose_port(std::string_view salt, const std::set<int>& taken);

}  // namespace th::launch
