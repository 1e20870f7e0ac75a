#pragma once
// The catalogue of VM sizes: what a host of each series has, draws and costs.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::fleet {

using SeriesIndex = int32_t;  // into series_catalogue()

/// All numbers are of one host (one VM fills one host) unless the name says GPU.
struct Series {
  const char* name;               // "LOCAL"
  const char* accelerator;        // what one GPU of it is
  int32_t gpus_per_host;          // 1..32
  int64_t microusd_per_gpu_hour;  // list price
  int64_t gpu_w;                  // one GPU in use
  int64_t host_idle_w;            // a host in use, before its GPUs
  const char* source;             // where the numbers come from

  int64_t host_full_w() const { return host_idle_w + gpus_per_host * gpu_w; }
};

/// The whole catalogue; a SeriesIndex stays the same within one build. Thread: safe, constant.
std::span<const Series> series_catalogue();

/// Errors: kNotFound ("series 'LOCL' is not in the catalogue, did you mean 'LOCAL'? ...").
Result<SeriesIndex> find_series(std::string_view name);

}  // namespace th::fleet
