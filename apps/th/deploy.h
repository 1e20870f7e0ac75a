#pragma once
// Models and deployments.

#include <optional>
#include <string>

#include "context.h"

namespace th::cli {

struct DeployOptions {
  std::string model = {}, name = {}, slice = {};
  std::optional<int64_t> gpus = {}, tokens_per_minute = {};
  bool detach = false;
};
/// Deploys and waits until it is ready. Errors: the controller's; kFailedPrecondition when it fails to come
/// up.
Result<Json> deploy_model(Context& context, const DeployOptions& options);

}  // namespace th::cli
