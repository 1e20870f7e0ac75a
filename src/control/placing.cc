#include "control/placing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "base/text.h"
#include "request/job_options.h"

namespace th::control {
namespace {

bool same(const std::string& a, const std::string& b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool among(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::any_of(names, [&](const std::string& other) { return same(other, name); });
}

std::string unknown(const char* what, const std::string& name, const std::set<std::string>& known) {
  const std::vector<std::string> names(known.begin(), known.end());
  return fmt::format("{} '{}' does not exist{}; th fleet and th nodes list show what there is", what, name,
                     did_you_mean(name, names));
}

}  // namespace

std::vector<std::string> features_of(const fleet::Fleet& fleet, fleet::HostIndex index) {
  const fleet::Rack& rack = fleet.rack(fleet.host(index).rack);
  const fleet::Series& series = fleet.series_of(index);
  std::vector<std::string> out = {series.name, rack.id,
                                  fleet.switches()[static_cast<size_t>(rack.leaf_switch)].id,
                                  fleet.sites()[static_cast<size_t>(rack.site)].id};
  for (std::string& word : split(series.accelerator, ' ')) {
    if (check_name(word, "feature")) out.push_back(std::move(word));
  }
  return out;
}

bool picks_hosts(const request::JobSpec& spec) {
  return !spec.nodelist.empty() || !spec.exclude.empty() || !spec.constraint.empty();
}

bool allows_host(const fleet::Fleet& fleet, const request::JobSpec& spec, fleet::HostIndex index,
                 const std::string& node) {
  auto named = [&](const std::vector<std::string>& names) {
    return among(names, fleet.host(index).id) || (!node.empty() && among(names, node));
  };
  if (!spec.nodelist.empty() && !named(spec.nodelist)) return false;
  if (named(spec.exclude)) return false;
  if (spec.constraint.empty()) return true;
  const auto constraint = request::parse_constraint(spec.constraint);
  if (!constraint) return false;  // the spec was validated
  const std::vector<std::string> features = features_of(fleet, index);
  return std::ranges::all_of(constraint->all_of_any, [&](const auto& group) {
    return std::ranges::any_of(group, [&](const std::string& name) { return among(features, name); });
  });
}

Status check_places(const fleet::Fleet& fleet, const ledger::State& state, const request::JobSpec& spec) {
  std::set<std::string> hosts, features;
  if (!picks_hosts(spec)) return {};
  for (size_t i = 0; i < fleet.hosts().size(); ++i) {
    hosts.insert(fleet.hosts()[i].id);
    for (std::string& name : features_of(fleet, static_cast<fleet::HostIndex>(i)))
      features.insert(std::move(name));
  }
  for (const auto& [id, vm] : state.vms) {
    if (vm.state != ledger::VmState::kDeleted) hosts.insert(id);
  }
  auto known = [](const std::set<std::string>& names, const std::string& name) {
    return std::ranges::any_of(names, [&](const std::string& other) { return same(other, name); });
  };
  for (const auto* list : {&spec.nodelist, &spec.exclude}) {
    for (const std::string& name : *list) {
      if (!known(hosts, name)) return fail(Code::kNotFound, unknown("node", name, hosts));
    }
  }
  if (spec.constraint.empty()) return {};
  TH_TRY(const auto constraint, request::parse_constraint(spec.constraint));
  for (const auto& group : constraint.all_of_any) {
    for (const std::string& name : group) {
      if (!known(features, name)) return fail(Code::kNotFound, unknown("feature", name, features));
    }
  }
  return {};
}

int64_t gpus_within(const request::JobSpec& spec, int64_t available) {
  const int64_t unit = spec.can_rescale ? spec.min_gpus : 0;
  if (spec.gpus <= available || unit == 0 || unit > available) return spec.gpus;
  const int64_t gpus = available / unit * unit, each = gpus_per_host(spec);
  return each > 0 && gpus % each != 0 ? spec.gpus : gpus;
}

/// On each host, where the job's nodes and GPUs say so; 0: as they fit.
int64_t gpus_per_host(const request::JobSpec& spec) {
  if (spec.gpus_per_node > 0) return spec.gpus_per_node;
  const bool exact =
      spec.min_nodes > 0 && spec.min_nodes == spec.max_nodes && spec.gpus % spec.min_nodes == 0;
  return exact ? spec.gpus / spec.min_nodes : 0;
}

reserve::Request own_request(const fleet::Fleet& fleet, const std::string& name, const request::JobSpec& spec,
                             const std::string& series, int64_t duration_ns) {
  reserve::Request request;
  request.name = name, request.series = series, request.duration_ns = duration_ns;
  const int64_t of_host =
      fleet::series_catalogue()[static_cast<size_t>(*fleet::find_series(series))].gpus_per_host;
  const int64_t each = gpus_per_host(spec);
  const int64_t hosts =
      each > 0 ? spec.gpus / each : spec.min_nodes;  // whole ones, whatever it takes of them
  request.gpus = std::max(spec.gpus, hosts * of_host);
  request.max_switches = static_cast<int32_t>(spec.max_switches);
  request.segment = static_cast<int32_t>(spec.segment);
  if (!picks_hosts(spec)) return request;
  request.only.emplace();
  for (size_t i = 0; i < fleet.hosts().size(); ++i) {
    const auto host = static_cast<fleet::HostIndex>(i);
    if (allows_host(fleet, spec, host, "")) request.only->push_back(host);
  }
  return request;
}

/// With --exclusive, the whole of each node that it comes to.
request::JobSpec fitted(const request::JobSpec& spec, const ledger::Slice* slice) {
  request::JobSpec out = spec;
  if (!spec.exclusive || slice == nullptr || slice->terms.hosts.empty()) return out;
  const int64_t of_host = slice->terms.hosts[0].gpus, each = gpus_per_host(spec);
  const int64_t nodes = std::max(
      {int64_t{1}, spec.min_nodes, each > 0 ? spec.gpus / each : 0, (spec.gpus + of_host - 1) / of_host});
  out.gpus = nodes * of_host, out.gpus_per_node = of_host;
  out.min_nodes = out.max_nodes = nodes, out.min_gpus = 0;
  return out;
}

}  // namespace th::control
