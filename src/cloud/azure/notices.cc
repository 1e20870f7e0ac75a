#include "cloud/azure/notices.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/azure/requests.h"

namespace th::cloud::azure {
namespace {

std::string url_of(const AzureProviderOptions& options) {
  return fmt::format("{}/metadata/scheduledevents?api-version={}", options.metadata_url, kEventsVersion);
}

/// The VM of "SET_INSTANCE"; empty: none of ours.
std::string vm_of(std::string_view instance, std::span<const ScaleSet> sets) {
  const size_t line = instance.rfind('_');
  if (line == instance.npos) return {};
  for (const ScaleSet& set : sets) {
    if (set.name != instance.substr(0, line)) continue;
    const auto book = book_of(set.tags);
    if (!book || !book->instances) return {};
    const auto found = std::ranges::find(*book->instances, instance.substr(line + 1));
    if (found == book->instances->end()) return {};
    return book->vms[static_cast<size_t>(found - book->instances->begin())];
  }
  return {};
}

std::string_view event_of(std::string_view notice) { return notice.substr(0, notice.find('/')); }

}  // namespace

Result<std::vector<Event>> ask_events(Arm& arm, const AzureProviderOptions& options, int64_t deadline_ns) {
  TH_TRY(const auto answer,
         arm.ask_openly({"asking for scheduled events", "GET", url_of(options)}, deadline_ns));
  return read_events(answer.body);
}

std::vector<Notice> notices_of(std::span<const Event> events, std::span<const ScaleSet> sets) {
  std::vector<Notice> notices;
  for (const Event& event : events) {
    for (const std::string& instance : event.instances) {
      std::string vm = vm_of(instance, sets);
      if (!vm.empty())
        notices.push_back(
            {fmt::format("{}/{}", event.id, vm), vm, event.kind, event.not_before_ns, event.detail});
    }
  }
  std::ranges::sort(notices, {}, [](const Notice& notice) { return std::pair(notice.vm, notice.id); });
  return notices;
}

bool Readiness::add(std::span<const Notice> notices, std::string_view id) {
  std::scoped_lock lock(mutex_);
  ready_.emplace(id);
  return std::ranges::all_of(notices, [&](const Notice& notice) {
    return event_of(notice.id) != event_of(id) || ready_.count(notice.id) > 0;
  });
}

Status start_event(Arm& arm, const AzureProviderOptions& options, std::string_view id, int64_t deadline_ns) {
  const Json body = {{"StartRequests", Json::array({{{"EventId", event_of(id)}}})}};
  const auto answer =
      arm.ask_openly({"acknowledging an event", "POST", url_of(options), dump_json(body)}, deadline_ns);
  const bool passed =
      !answer && (answer.error().code == Code::kNotFound || answer.error().code == Code::kInvalidArgument);
  if (!answer && !passed) return fail(answer.error());
  return {};
}

}  // namespace th::cloud::azure
