#pragma once
// Scheduled events of the Instance Metadata Service: what is about to happen to VMs, and that they are ready.

#include <span>

#include "cloud/azure/arm.h"

namespace th::cloud::azure {

Result<std::vector<Event>> ask_events(Arm& arm, const AzureProviderOptions& options, int64_t deadline_ns);
/// Those of our VMs, by VM; an event of several VMs is a notice to each, under one id.
std::vector<Notice> notices_of(std::span<const Event> events, std::span<const ScaleSet> sets);
/// An event that has passed is a success.
Status start_event(Arm& arm, const AzureProviderOptions& options, std::string_view id, int64_t deadline_ns);

}  // namespace th::cloud::azure
