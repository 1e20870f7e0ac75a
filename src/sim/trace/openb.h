#pragma once
// Reads the node and pod lists of OpenB: Alibaba's cluster-trace-gpu-v2023 as the FGD paper (ATC'23) uses it.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/trace/csv.h"

namespace th::sim {

inline constexpr int32_t kOpenbMaxGpus = 8;    // of one node
inline constexpr size_t kOpenbMaxModels = 64;  // of one node list
inline constexpr int32_t kOpenbWholeMilli = 1000;

struct OpenbNode {
  std::string name;
  int64_t cpu_milli = 0;
  int64_t memory_mib = 0;
  int32_t gpus = 0;  // 1 .. kOpenbMaxGpus
  std::string model;

  bool operator==(const OpenbNode&) const = default;
};

struct OpenbPod {
  int64_t cpu_milli = 0;
  int64_t memory_mib = 0;
  int32_t gpus = 0;                 // 0: CPU only
  int32_t gpu_milli = 0;            // of each GPU, 1 .. 1000; 0 when CPU only
  std::vector<std::string> models;  // ascending, once each; empty: any

  bool operator==(const OpenbPod&) const = default;
};

/// By name. Errors: as read_csv(); a name that comes twice is a bad line. kInvalidArgument for a list without
/// nodes.
Result<std::vector<OpenbNode>> read_openb_nodes(std::string_view text, const CsvOptions& options,
                                                Skipped& skipped);

/// In the order of the list. A pod with more GPUs than `max_gpus` (the largest node) is a bad line. The
/// column gpu_spec may be absent: any model. Errors: as read_csv(). kInvalidArgument for a list without GPU
/// pods.
Result<std::vector<OpenbPod>> read_openb_pods(std::string_view text, const CsvOptions& options,
                                              int32_t max_gpus, Skipped& skipped);

}  // namespace th::sim
