#include "cloud/azure/reservations.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cloud/azure/requests.h"

namespace th::cloud::azure {
namespace {

constexpr const char* kBlock = "/capacityReservations/block";

std::string url_of(const AzureProviderOptions& options, std::string_view group, std::string_view below = {}) {
  return compute_url(options, fmt::format("capacityReservationGroups/{}{}", group, below));
}

}  // namespace

Result<std::string> reserve_block(Arm& arm, const AzureProviderOptions& options, const ReserveVms& request,
                                  int64_t deadline_ns) {
  if (request.client_token.empty() || request.client_token.size() > 256 || request.num_vms < 1)
    return fail(Code::kInvalidArgument,
                "a reservation needs a VM, and a client token of at most 256 characters");
  TH_TRY(const Size size, find_size(request.series));
  TH_TRY(const Json block, reservation_body(options, size, request, arm.now_ns()));
  const std::string name = group_name(options.cluster, request.client_token);
  const std::string what =
      fmt::format("reserving {} VMs of {} in {}", request.num_vms, size.name, options.region);
  const Json group = reservation_group_body(options, request);
  TH_RETURN_IF_ERROR(arm.carry_out({what, "PUT", url_of(options, name), dump_json(group)}, deadline_ns));
  const Status kept =
      arm.carry_out({what, "PUT", url_of(options, name, kBlock), dump_json(block)}, deadline_ns);
  if (kept) return name;
  const bool open = kept.error().code == Code::kDeadlineExceeded || kept.error().code == Code::kUnavailable;
  if (!open) (void)cancel_block(arm, options, name, deadline_ns);
  return fail(kept.error());
}

Result<std::vector<std::string>> list_blocks(Arm& arm, const AzureProviderOptions& options,
                                             int64_t deadline_ns) {
  const Ask ask{"listing reservations", "GET", compute_url(options, "capacityReservationGroups")};
  TH_TRY(const auto groups, arm.list(ask, read_groups, deadline_ns));
  std::vector<std::string> names;
  for (const NamedTags& group : groups) {
    const auto book = book_of(group.tags);
    if (book && book->cluster == options.cluster) names.push_back(group.name);
  }
  std::ranges::sort(names);
  return names;
}

Status cancel_block(Arm& arm, const AzureProviderOptions& options, std::string_view name,
                    int64_t deadline_ns) {
  TH_RETURN_IF_ERROR(check_name(name, "reservation"));
  for (const char* below : {kBlock, ""}) {
    const Status done = arm.carry_out(
        {fmt::format("cancelling reservation {}", name), "DELETE", url_of(options, name, below)},
        deadline_ns);
    if (!done && done.error().code != Code::kNotFound) return done;
  }
  return {};
}

}  // namespace th::cloud::azure
