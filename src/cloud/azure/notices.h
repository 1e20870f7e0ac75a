#pragma once
// Scheduled events of the Instance Metadata Service: what is about to happen to VMs, and that they are ready.

#include <mutex>
#include <set>
#include <span>

#include "cloud/azure/arm.h"

namespace th::cloud::azure {

Result<std::vector<Event>> ask_events(Arm& arm, const AzureProviderOptions& options, int64_t deadline_ns);
/// Those of our VMs, by VM. An event of several VMs is a notice to each, "EVENT/VM".
std::vector<Notice> notices_of(std::span<const Event> events, std::span<const ScaleSet> sets);
/// Which notices were acknowledged by this process. Thread: safe.
class Readiness {
 public:
  /// Returns: whether all VMs of the event of notice `id` are ready now.
  bool add(std::span<const Notice> notices, std::string_view id);

 private:
  std::mutex mutex_;
  std::set<std::string, std::less<>> ready_;
};
/// Lets the event of notice `id` come. One that has passed is a success.
Status start_event(Arm& arm, const AzureProviderOptions& options, std::string_view id, int64_t deadline_ns);

}  // namespace th::cloud::azure
