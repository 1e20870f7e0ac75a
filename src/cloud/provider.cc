#include "cloud/provider.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"
#include "cloud/check_names.h"
#include "fleet/series.h"

namespace th::cloud {
namespace {

constexpr std::array<std::string_view, 5> kNotices = {"preempt", "terminate", "reboot", "redeploy", "freeze"};

}  // namespace

std::string_view phase_name(VmPhase phase) {
  constexpr std::array<std::string_view, 3> kNames = {"creating", "running", "dead"};
  return kNames.at(static_cast<size_t>(phase));
}

std::string_view notice_name(NoticeKind kind) { return kNotices.at(static_cast<size_t>(kind)); }

std::optional<NoticeKind> notice_from_name(std::string_view name) {
  const auto found = std::ranges::find(kNotices, name);
  if (found == kNotices.end()) return std::nullopt;
  return static_cast<NoticeKind>(found - kNotices.begin());
}

Status check_names(const CreateVms& request) {
  if (request.vms.empty()) return fail(Code::kInvalidArgument, "a request for VMs names none");
  if (request.client_token.empty())
    return fail(Code::kInvalidArgument, "a request for VMs has no client token");
  std::set<std::string> names;
  for (const VmSpec& spec : request.vms) {
    TH_RETURN_IF_ERROR(check_name(spec.vm, "VM"));
    if (!names.insert(spec.vm).second)
      return fail(Code::kInvalidArgument, fmt::format("VM '{}' stands twice in the request", spec.vm));
  }
  return {};
}

Result<Quote> Provider::quote(const QuoteVms& request, int64_t) {
  TH_RETURN_IF_ERROR(check_series(request.series));
  TH_TRY(const auto index, fleet::find_series(request.series));
  const fleet::Series& series = fleet::series_catalogue()[static_cast<size_t>(index)];
  return Quote{series.gpus_per_host * series.microusd_per_gpu_hour, "list price"};
}

Result<VmState> Provider::stop(std::string_view vm, int64_t timeout_ns) {
  auto known = describe(vm, timeout_ns);
  TH_RETURN_IF_ERROR(remove(vm, timeout_ns));  // also what is half made, of which nothing is known
  if (!known && known.error().code == Code::kNotFound) return fail(known.error());
  VmState state;
  if (known) state = *std::move(known);
  state.vm = vm;
  state.phase = VmPhase::kDead;
  state.detail = "stopped";
  return state;
}

Result<std::vector<Notice>> Provider::events(int64_t) { return std::vector<Notice>(); }

Status Provider::acknowledge(std::string_view, int64_t) { return {}; }

Result<std::string> Provider::reserve(const ReserveVms& request, int64_t) {
  return fail(
      Code::kUnsatisfiable,
      fmt::format("this provider keeps no capacity of {} for later; create the VMs when the time comes",
                  request.series));
}

Result<std::vector<std::string>> Provider::list_reservations(int64_t) { return std::vector<std::string>(); }

Status Provider::cancel_reservation(std::string_view, int64_t) { return {}; }

}  // namespace th::cloud
