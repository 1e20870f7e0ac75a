#pragma once
// What every backend checks of a request before it asks for anything.

#include "cloud/provider.h"

namespace th::cloud {

/// It has VMs, a client token, names, and none of them twice. Errors: kInvalidArgument.
Status check_names(const CreateVms& request);

}  // namespace th::cloud
