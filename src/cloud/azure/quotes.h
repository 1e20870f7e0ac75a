#pragma once
// What VMs would cost, and whether the region has them: the lists of sizes and quotas, and the retail prices.

#include "cloud/azure/arm.h"

namespace th::cloud::azure {

/// Errors: kUnsatisfiable (not offered in the region or zone), kResourceExhausted (quota; names what is used,
/// asked and allowed), those of Arm. Cost: three calls and their pages.
Result<Quote> quote_vms(Arm& arm, const AzureProviderOptions& options, const QuoteVms& request,
                        int64_t deadline_ns);

}  // namespace th::cloud::azure
