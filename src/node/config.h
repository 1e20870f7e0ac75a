#pragma once
// node.json: who a node is and what it is expected to find (docs/node.md).

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::node {

struct Expectation {
  int gpus = 0;
  int cpus = 0;  // 0: not checked, as below
  int64_t memory_bytes = 0;
  int64_t disk_free_bytes = 0;        // where jobs_dir lies
  int64_t memory_bytes_per_s = 0;     // of copying; 0: what a share of a real processor does
  std::vector<std::string> programs;  // beside th-node or in PATH
};

struct NodeConfig {
  std::string name, host, vm;
  std::string controller;  // "http://127.0.0.1:7070"
  std::string authority;   // PEM: whose certificate it takes there; empty: those that the system trusts
  std::string token;
  std::filesystem::path dir;                    // the VM's folder: logs, cgroup; absolute
  std::filesystem::path jobs_dir;               // jobs' folders are made here; absolute
  std::vector<std::filesystem::path> registry;  // what jobs take from there the controller has looked at
  std::string address = "127.0.0.1";
  int gpus = 0;
  bool private_networks = true;       // each tenant's ranks have one, where the machine allows
  std::optional<std::string> run_as;  // user of the ranks if the node is root
  Expectation expect;
};

/// Errors: those of read_file, kInvalidArgument naming the file and the field; kPermissionDenied when others
/// than the owner may read it, since the token stands in it.
Result<NodeConfig> load_node_config(const std::filesystem::path& path);

}  // namespace th::node
