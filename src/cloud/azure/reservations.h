#pragma once
// Capacity reservation groups of type Block: VMs kept for days that were agreed on in advance.

#include "cloud/azure/arm.h"

namespace th::cloud::azure {

/// Returns the name of the group, derived from the token. Errors: kInvalidArgument (dates), those of Arm.
Result<std::string> reserve_block(Arm& arm, const AzureProviderOptions& options, const ReserveVms& request,
                                  int64_t deadline_ns);
/// Names of our groups, also half-made ones, ascending.
Result<std::vector<std::string>> list_blocks(Arm& arm, const AzureProviderOptions& options,
                                             int64_t deadline_ns);
Status cancel_block(Arm& arm, const AzureProviderOptions& options, std::string_view name,
                    int64_t deadline_ns);

}  // namespace th::cloud::azure
