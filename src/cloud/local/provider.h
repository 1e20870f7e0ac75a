#pragma once
// VMs of this machine: a VM is a folder STATE/vms/VM and a `th-node` process of its own session, which
// outlives the controller. Format of the folder: docs/cloud.md.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cloud/provider.h"

namespace th::cloud {

struct LocalProviderOptions {
  std::filesystem::path state_dir;     // STATE, absolute; vms/ and jobs/ are made below it
  std::filesystem::path node_program;  // th-node; empty: the one beside this program
  std::string controller_url;          // "http://127.0.0.1:7070": where nodes dial
  std::string authority_pem = {};      // whose certificate they take there; empty: those of the system
  std::string run_as = "nobody";       // user of the ranks when the node runs as root; empty: the node's own
  bool private_networks = true;  // a network of its own for each tenant's ranks, where the machine allows
  std::vector<std::string> programs = {};  // that nodes must find beside th-node or in PATH
  int64_t stop_grace_ms = 15'000;  // remove(): between SIGTERM and SIGKILL; covers the ranks' own grace
};

/// A VM is identified by the pid and the kernel start time of its node, so a reused pid is never taken for
/// it. create() returns once the process runs (some ms a VM); remove() once no process and no file of it is
/// left. A controller that listens elsewhere after a restart calls this again: list(), describe() and
/// create() rewrite nothing, so keep `controller_url` stable (nodes read it once, at their start). Errors:
/// kInvalidArgument (options), kNotFound (node_program), those of making the folders.
Result<std::unique_ptr<Provider>> make_local_provider(LocalProviderOptions options);

}  // namespace th::cloud
