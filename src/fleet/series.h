#pragma once
// The catalogue of VM sizes: what a host of each series has, draws and costs.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::fleet {

using SeriesIndex = int32_t;  // into series_catalogue()

inline constexpr size_t kNumSeries = 8;

/// All numbers are of one host (one VM fills one host) unless the name says GPU. 0: it has none, or none is
/// published.
struct Series {
  const char* name;         // "ND_H100_v5"
  const char* accelerator;  // what one GPU of it is
  int32_t gpus_per_host;    // 1..32
  int32_t vcpus;
  int64_t ram_bytes;
  int64_t gpu_memory_bytes;          // of one GPU
  int64_t gpu_nvlink_bytes_per_s;    // of one GPU, both directions together, as NVIDIA counts
  int32_t nvlink_domain_hosts;       // hosts that share one NVLink domain; > 1: the hosts of a rack do
  int64_t gpu_infiniband_bit_per_s;  // of one GPU
  int64_t microusd_per_gpu_hour;     // list price, pay as you go
  int64_t gpu_w;                     // one GPU in use
  int64_t host_idle_w;               // a host in use, before its GPUs
  const char* as_of;                 // when the facts were looked up
  const char* source;                // where they come from

  int64_t host_full_w() const { return host_idle_w + gpus_per_host * gpu_w; }
};

/// The whole catalogue; a SeriesIndex stays the same within one build. Thread: safe, constant.
std::span<const Series, kNumSeries> series_catalogue();

/// Errors: kNotFound ("series 'LOCL' is not in the catalogue, did you mean 'LOCAL'? ...").
Result<SeriesIndex> find_series(std::string_view name);

}  // namespace th::fleet
