#pragma once
// Acquiring a slice: offer, hold, lease.

#include <string>
#include <vector>

#include "context.h"

namespace th::cli {

struct SliceOptions {
  std::string name;
  std::string gpus, series, duration;  // gpus: "8" or "8-64"
  std::string nodes = {}, max_price = {}, budget = {}, start = {}, deadline = {}, stack = {}, idle = {},
              account = {};
  std::vector<std::string> or_series = {}, zones = {};
  int64_t spares = 0, switches = 0, segment = 0, resized_gpus = 0;
  bool spread = false, pack = false, spot = false;
  bool dry_run = false;
};
/// Prints the offer, holds, commits, waits until the slice is ready. Returns the slice (with dry_run
/// {"offer":…}). Errors: the controller's refusal; kFailedPrecondition when it ends without being ready.
Result<Json> create_slice(Context& context, const SliceOptions& options);

Result<Json> show_slice(Context& context, const std::string& name);

}  // namespace th::cli
