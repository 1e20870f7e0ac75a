#pragma once
// Acquiring a slice: offer, hold, lease.

#include <string>

#include "context.h"

namespace th::cli {

struct SliceOptions {
  std::string name;
  int64_t gpus = 0;
  std::string series;
  std::string duration;
  std::string max_price = {};
  bool dry_run = false;
};
/// Prints the offer, holds, commits, waits until the slice is ready. Returns the slice (with dry_run
/// {"offer":…}). Errors: the controller's refusal; kFailedPrecondition when it ends without being ready.
Result<Json> create_slice(Context& context, const SliceOptions& options);

Result<Json> show_slice(Context& context, const std::string& name);

}  // namespace th::cli
