// How jobs come in: what is checked of them before they are kept.

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "control/data_sets.h"
#include "control/jobs.h"
#include "control/placing.h"
#include "control/stacks.h"
#include "control/visible.h"
#include "request/job_options.h"

namespace th::control {
namespace {

using ledger::Slice;
using ledger::SliceState;

constexpr size_t kMaxSpecBytesOfNode = node::kMaxSyncBytes * 3 / 4;

bool may_go_first(const Caller& who) {
  return who.owner.account.empty() && who.role >= ledger::Role::kOperator;
}

}  // namespace

Result<std::string> Jobs::choose_series(const request::JobSpec& spec) const {
  const auto catalogue = fleet::series_catalogue();
  int64_t most = 0;
  const reserve::Partition* partition = partition_of(spec);
  for (size_t i = 0; i < catalogue.size(); ++i) {
    if (partition && !partition->series.empty() && partition->series != catalogue[i].name) continue;
    if (!core_.provider().check_series(catalogue[i].name)) continue;
    const int64_t gpus = core_.fleet().num_gpus(static_cast<fleet::SeriesIndex>(i));
    if (gpus >= spec.gpus) return std::string(catalogue[i].name);
    most = std::max(most, gpus);
  }
  return fail(Code::kUnsatisfiable,
              fmt::format("job '{}' asks for {} GPUs; the fleet has {} of one series; ask for at "
                          "most {}",
                          spec.name, spec.gpus, most, most));
}

/// Each rank's task repeats the spec, and those of one node have to fit into one answer to it.
Status Jobs::check_fits_sync(const request::JobSpec& spec) const {
  size_t ranks = 1;
  for (const fleet::Host& host : core_.fleet().hosts()) {
    ranks = std::max(ranks, static_cast<size_t>(host.gpus));
  }
  const size_t bytes = dump_json(request::to_json(spec)).size();
  if (bytes * ranks <= kMaxSpecBytesOfNode) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("job '{}' is {} bytes long, once for each of up to {} ranks of a node, which takes "
                          "{} bytes in all; stage big files instead of sending them",
                          spec.name, bytes, ranks, kMaxSpecBytesOfNode));
}

/// Of the policy, when it is one of those that it names and not a slice.
const reserve::Partition* Jobs::partition_of(const request::JobSpec& spec) const {
  return spec.slice ? core_.policy().find_partition(*spec.slice) : nullptr;
}

/// The id of the slice that it names; empty: it gets one of its own.
Result<std::string> Jobs::slice_for(const request::JobSpec& spec) {
  std::optional<std::string> name = spec.slice;
  if (partition_of(spec)) name.reset();
  if (!spec.reservation.empty() && !core_.state().reservations.count(spec.reservation)) {
    if (name && *name != spec.reservation) {
      return fail(Code::kInvalidArgument,
                  fmt::format("partition '{}' and reservation '{}': a reservation is a slice "
                              "of its own; name one of them",
                              *name, spec.reservation));
    }
    name = spec.reservation;
  }
  if (!name) return std::string();
  const Slice* slice = find_slice(core_, *name);
  if (!slice) {
    return fail(Code::kNotFound, "slice '" + *name + "' does not exist; th slice list shows those that do");
  }
  if (!slice->live() || slice->state == SliceState::kReleasing) {
    return fail(Code::kFailedPrecondition, fmt::format("slice '{}' is {}; create one with th slice create",
                                                       *name, ledger::name_of(slice->state)));
  }
  if (!spec.stack.empty()) {
    TH_TRY(const registry::Stack stack, find_stack(core_.state(), spec.stack));
    const std::string& holds = slice->requested.stack;
    if (stack.id() != holds)
      return fail(Code::kFailedPrecondition,
                  fmt::format("job '{}' wants stack {} and slice '{}' holds {}; leave one of them out",
                              spec.name, stack.id(), *name, holds.empty() ? registry::kBaseStack : holds));
  }
  if (gpus_within(spec, slice->terms.gpus) > slice->terms.gpus) {
    return fail(Code::kUnsatisfiable,
                fmt::format("job '{}' asks for {} GPUs and slice '{}' has {}; ask for at most {}", spec.name,
                            spec.gpus, *name, slice->terms.gpus, slice->terms.gpus));
  }
  return slice->terms.slice;
}

Status Jobs::check_options(const request::JobSpec& spec) {
  if (!spec.array_job.empty() || !spec.step_of.empty()) {
    return fail(Code::kInvalidArgument, fmt::format("field '{}': is set by the controller alone",
                                                    spec.step_of.empty() ? "array_job" : "step_of"));
  }
  TH_RETURN_IF_ERROR(check_places(core_.fleet(), core_.state(), spec));
  if (auto stack = find_stack(core_.state(), spec.stack); !stack) return fail(stack.error());
  if ((spec.priority > 0 || spec.nice < 0) && !may_go_first(core_.who())) {
    return fail(
        Code::kPermissionDenied,
        fmt::format("field '{}': going before others takes the role operator of the platform; leave it out",
                    spec.priority > 0 ? "priority" : "nice"));
  }
  if (spec.segment > 0 && gpus_per_host(spec) == 0) {
    return fail(Code::kInvalidArgument,
                "segment: blocks of nodes want a number of nodes, or GPUs of each node");
  }
  if (spec.deadline_ns != 0 && core_.now_ns() + spec.duration_ns.value_or(0) > spec.deadline_ns) {
    return fail(Code::kInvalidArgument,
                fmt::format("deadline {}: it cannot end by then", format_time(spec.deadline_ns)));
  }
  if (spec.dependency.empty()) return {};
  TH_TRY(const auto dependencies, request::parse_dependencies(spec.dependency));
  for (const request::Dependency& dependency : dependencies.items) {
    if (dependency.job.empty()) continue;
    const auto meant = jobs_meant(core_.state(), dependency.job, specs());
    if (!meant.empty() && sees(core_, meant[0]->owner)) continue;
    return fail(Code::kNotFound,
                fmt::format("dependency '{}': job '{}' does not exist; th jobs lists those that do",
                            request::name_of(dependency.kind), dependency.job));
  }
  return {};
}

std::string spec_text(const request::JobSpec& spec) { return dump_json(request::to_json(spec)); }

std::string Jobs::stage_job(const request::JobSpec& spec, const std::string& kind, const std::string& slice) {
  ledger::JobSubmitted submitted;
  submitted.job = fmt::format("job-{}", core_.state().next_job);
  submitted.name = spec.name, submitted.kind = kind, submitted.slice = slice, submitted.gpus = spec.gpus;
  submitted.spec = spec_text(spec);
  const std::string id = submitted.job;
  const reserve::Partition* partition = partition_of(spec);
  core_.stage(std::move(submitted));
  if (auto owner = core_.owner_for(spec.account, spec.qos, partition ? partition->name : ""))
    core_.stage(ledger::JobOwned{id, owner->account, owner->user, owner->qos, owner->partition});
  return id;
}

Result<std::string> Jobs::submit(const request::JobSpec& given, const std::string& kind) {
  TH_TRY(const request::JobSpec asked, with_data_set(core_.state(), given));
  TH_RETURN_IF_ERROR(check_fits_sync(asked));
  TH_RETURN_IF_ERROR(check_options(asked));
  for (const auto& [to, from] : given.stage) TH_RETURN_IF_ERROR(check_may_stage(core_, from));
  if (auto owner = core_.owner_for(asked.account, asked.qos, ""); !owner) return fail(owner.error());
  TH_TRY(const std::string slice, slice_for(asked));
  request::JobSpec spec = fitted(asked, slice.empty() ? nullptr : &core_.state().slices.at(slice));
  TH_RETURN_IF_ERROR(slice_for(spec));  // it may have become larger
  if (const reserve::Partition* partition = partition_of(spec); partition && !spec.duration_ns)
    spec.duration_ns = partition->default_time_ns;
  if (slice.empty()) {
    TH_TRY(std::string series, choose_series(spec));
    const auto request =
        own_request(core_.fleet(), spec.name, spec, series, spec.duration_ns.value_or(kDefaultBatchNs));
    auto plan = reserve::decide(core_.snapshot(), request, {}, core_.now_ns());
    if (!plan && !plan.error().later) return fail(plan.error().error());
  }
  if (spec.array.empty()) return stage_job(spec, kind, slice);
  TH_TRY(const request::ArraySpec array, request::parse_array(spec.array));
  request::JobSpec task = spec;
  task.array.clear();
  task.array_job = fmt::format("job-{}", core_.state().next_job), task.array_limit = array.limit;
  for (int64_t index : array.indices) {
    task.array_index = index;
    stage_job(task, kind, slice);
  }
  return task.array_job;
}

}  // namespace th::control
