#include "control/views.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "control/batch.h"
#include "control/visible.h"
#include "request/job_fields.h"

namespace th::control {
namespace {

using ledger::Slice;
using ledger::SliceState;
using ledger::Vm;
using ledger::VmState;

Json host_json(const Controller& c, fleet::HostIndex index) {
  const fleet::Host& host = c.core.fleet().host(index);
  const reserve::HostUse use = c.core.snapshot().host_use(index, c.core.now_ns());
  const char* state = use.out_of_use ? "drained" : use.busy ? "used" : "free";
  return {{"id", host.id},
          {"series", c.core.fleet().series_of(index).name},
          {"gpus", host.gpus},
          {"gpus_used", std::popcount(use.busy)},
          {"state", state},
          {"lemon", use.is_lemon},
          {"reason", use.out_of_use.value_or(use.is_lemon ? "it loses its nodes too often" : "")}};
}

Json terms_json(const ledger::SliceHeld& terms) {
  Json hosts = Json::array();
  for (const ledger::Share& share : terms.hosts) {
    hosts.push_back({{"host", share.host}, {"rack", share.rack}, {"leaf", share.leaf}, {"gpus", share.gpus}});
  }
  return {{"gpus", terms.gpus},
          {"series", terms.series},
          {"start_ns", terms.start_ns},
          {"end_ns", terms.end_ns},
          {"price_microusd", terms.price_microusd},
          {"microusd_per_gpu_hour", terms.microusd_per_gpu_hour},
          {"hosts", std::move(hosts)},
          {"placement", terms.placement},
          {"sooner", ""}};
}

std::string slice_name(const Controller& c, const std::string& id) {
  const auto slice = c.core.state().slices.find(id);
  return slice == c.core.state().slices.end() ? id : slice->second.terms.name;
}

Json parsed(const std::string& text) {
  if (text.empty()) return nullptr;
  auto json = parse_json(text, "stored line");
  return json ? *std::move(json) : Json(nullptr);
}

std::string spine_of(const fleet::Fleet& fleet, const fleet::Rack& rack) {
  const fleet::SwitchIndex spine =
      fleet.spines()[static_cast<size_t>(fleet.leaf(rack.leaf).spine)].switch_index;
  return spine < 0 ? "" : fleet.switches()[static_cast<size_t>(spine)].id;
}

}  // namespace

Json fleet_json(const Controller& c) {
  const fleet::Fleet& fleet = c.core.fleet();
  Json sites = Json::array(), racks = Json::array(), series = Json::array();
  for (const fleet::Site& site : fleet.sites()) sites.push_back(site.id);
  for (size_t i = 0; i < fleet.racks().size(); ++i) {
    const fleet::Rack& rack = fleet.racks()[i];
    Json hosts = Json::array();
    for (int32_t h = 0; h < rack.num_hosts; ++h) hosts.push_back(host_json(c, rack.first_host + h));
    racks.push_back(
        {{"id", rack.id},
         {"leaf", fleet.switches()[static_cast<size_t>(rack.leaf_switch)].id},
         {"spine", spine_of(fleet, rack)},
         {"power_budget_w", rack.power_budget_w},
         {"power_used_w", c.core.snapshot().rack_power_w(static_cast<int32_t>(i), c.core.now_ns())},
         {"hosts", std::move(hosts)}});
  }
  const auto catalogue = fleet::series_catalogue();
  for (size_t i = 0; i < catalogue.size(); ++i) {
    const int64_t gpus = fleet.num_gpus(static_cast<fleet::SeriesIndex>(i));
    if (gpus == 0) continue;
    series.push_back({{"name", catalogue[i].name},
                      {"accelerator", catalogue[i].accelerator},
                      {"gpus", gpus},
                      {"gpus_per_host", catalogue[i].gpus_per_host},
                      {"gpu_memory_bytes", catalogue[i].gpu_memory_bytes},
                      {"gpu_nvlink_bytes_per_s", catalogue[i].gpu_nvlink_bytes_per_s},
                      {"gpu_infiniband_bit_per_s", catalogue[i].gpu_infiniband_bit_per_s},
                      {"host_full_w", catalogue[i].host_full_w()},
                      {"microusd_per_gpu_hour", catalogue[i].microusd_per_gpu_hour}});
  }
  return {{"name", fleet.name()},
          {"sites", std::move(sites)},
          {"racks", std::move(racks)},
          {"series", std::move(series)}};
}

Json offer_json(const Controller& c, const Offer& offer) {
  ledger::SliceHeld terms;
  terms.gpus = offer.plan.gpus, terms.series = offer.series;
  terms.start_ns = offer.plan.start_ns, terms.end_ns = offer.plan.end_ns;
  terms.price_microusd = offer.plan.price_microusd;
  terms.microusd_per_gpu_hour = offer.plan.microusd_per_gpu_hour;
  terms.placement = offer.plan.explanation;
  terms.hosts = shares_of(offer.plan, c.core.fleet());
  Json out = terms_json(terms);
  out["sooner"] = offer.sooner, out["cheaper"] = offer.cheaper;
  if (!offer.reason.empty()) out["reason"] = {{"code", offer.reason_code}, {"text", offer.reason}};
  return out;
}

Json stack_json(const registry::Stack& stack) {
  return {{"name", stack.name},
          {"version", stack.version},
          {"about", stack.about},
          {"images", stack.images},
          {"packages", stack.packages},
          {"programs", stack.programs},
          {"environment", stack.environment},
          {"validate", stack.validate}};
}

Json estimate_json(const Controller& c, const Estimate& estimate) {
  Json out = estimate.plan ? offer_json(c, {estimate.series, *estimate.plan, ""}) : Json::object();
  out["partition"] = estimate.partition;
  out["price_microusd"] = estimate.price_microusd;
  out["reason"] = {{"code", estimate.waiting.code}, {"text", estimate.waiting.text}};
  out["smallest_change"] =
      estimate.waiting.smallest_change.empty() ? Json(nullptr) : Json(estimate.waiting.smallest_change);
  if (!estimate.plan && estimate.waiting.estimated_start_ns)
    out["start_ns"] = estimate.waiting.estimated_start_ns;
  return out;
}

std::string slice_state(const Controller& c, const Slice& slice) {
  if (slice.state == SliceState::kReady) {
    const auto there = live_vms(c.core.state(), slice);
    for (const ledger::Share& share : slice.terms.hosts) {
      const auto vm = there.find(share.host);
      if (vm == there.end() || vm->second->state != VmState::kReady) return "degraded";
    }
  }
  return std::string(ledger::name_of(slice.state));
}

Json node_json(const Controller& c, const Vm& vm) {
  const auto host = c.core.fleet().find_host(vm.host);
  const fleet::Rack* rack = host ? &c.core.fleet().rack(c.core.fleet().host(*host).rack) : nullptr;
  const bool suspect = vm.state == VmState::kReady && c.nodes.suspect(vm.id);
  return {{"name", vm.id},
          {"host", vm.host},
          {"rack", rack ? rack->id : ""},
          {"leaf", rack ? c.core.fleet().switches()[static_cast<size_t>(rack->leaf_switch)].id : ""},
          {"slice", slice_name(c, vm.slice)},
          {"state", suspect ? "suspect" : ledger::name_of(vm.state)},
          {"gpus", vm.gpus},
          {"reason", suspect ? "not heard of for " + format_duration(c.nodes.silent_ns(vm.id)) : vm.reason}};
}

Json slice_json(const Controller& c, const Slice& slice) {
  Json nodes = Json::array();
  for (const std::string& vm : slice.vms) {
    const Vm& of = c.core.state().vms.at(vm);
    if (of.state != VmState::kDeleted) nodes.push_back(node_json(c, of));
  }
  const ledger::SliceHeld& terms = slice.terms;
  Json out = {{"id", terms.slice},
              {"name", terms.name},
              {"state", slice_state(c, slice)},
              {"gpus", terms.gpus},
              {"series", terms.series},
              {"start_ns", terms.start_ns},
              {"end_ns", terms.end_ns},
              {"offer", terms_json(terms)},
              {"cost_microusd", slice.cost_microusd_at(c.core.now_ns())},
              {"nodes", std::move(nodes)},
              {"reason", slice.reason.empty() ? c.slices.repair_note(terms.slice) : slice.reason},
              {"implicit", terms.implicit},
              {"ready_ns", slice.ready_ns},
              {"ended_ns", slice.ended_ns}};
  out["account"] = account_of(slice.owner), out["qos"] = qos_of(slice.owner), out["spot"] = slice.owner.spot;
  out["stack"] = slice.requested.stack.empty() ? registry::kBaseStack : slice.requested.stack;
  out["zone"] = slice.requested.zone, out["idle_ns"] = slice.requested.idle_ns;
  out["code"] = slice.fault_code.empty() ? Json(nullptr) : Json(slice.fault_code);
  out["resizing_to_gpus"] = slice.resize ? Json(slice.resize->asked.gpus) : Json(nullptr);
  if (slice.state == SliceState::kHeld) out["hold_expires_ns"] = terms.hold_expires_ns;
  return out;
}

Json job_json(Controller& c, const ledger::Job& job) {
  const std::string& id = job.submitted.job;
  Json ranks = Json::array();
  for (size_t i = 0; i < job.ranks.size(); ++i) {
    const ledger::Rank& rank = job.ranks[i];
    const char* state = rank.exited                               ? "exited"
                        : job.state == ledger::JobState::kRunning ? "running"
                        : job.attempt_open                        ? "starting"
                                                                  : "stopped";
    ranks.push_back({{"rank", i},
                     {"node", rank.place.vm},
                     {"state", state},
                     {"exit_code", rank.exited && rank.exit_code >= 0 ? Json(rank.exit_code) : Json(nullptr)},
                     {"signal", rank.signal ? Json(rank.signal) : Json(nullptr)}});
  }
  const bool started = job.attempt > 0;  // else nothing was written, and nothing need be looked for
  const StoredLine* progress = started ? c.output.last(id, "progress") : nullptr;
  const StoredLine* result = started ? c.output.last(id, "result") : nullptr;
  const Waiting* waiting = c.jobs.waiting(id);
  const request::JobSpec& spec = c.jobs.spec_of(job);
  Json options = Json::object(), places = Json::array();
  request::options_to_json(spec, options);
  for (const ledger::RankPlace& place : places_of(job)) {
    places.push_back({{"node", place.vm}, {"gpus", place.gpus}});
  }
  const auto user = spec.env.find("SLURM_JOB_USER");
  return {{"id", id},
          {"name", job.submitted.name},
          {"slice", job.slice.empty() ? Json(nullptr) : Json(slice_name(c, job.slice))},
          {"kind", job.submitted.kind},
          {"state", ledger::name_of(job.state)},
          {"attempt", job.attempt},
          {"gpus", job.submitted.gpus},
          {"ranks", std::move(ranks)},
          {"reason", !job.ended() && waiting ? waiting->text : job.reason},
          {"reason_code", !job.ended() && waiting ? waiting->code : job.cause},
          {"estimated_start_ns", !job.ended() && waiting && waiting->estimated_start_ns
                                     ? Json(waiting->estimated_start_ns)
                                     : Json(nullptr)},
          {"stopping", !job.ended() && job.cancelling()},
          {"places", std::move(places)},
          {"user", user == spec.env.end() ? "" : user->second},
          {"time_limit_ns", spec.duration_ns ? Json(*spec.duration_ns) : Json(nullptr)},
          {"options", std::move(options)},
          {"progress", progress ? parsed(progress->line) : Json(nullptr)},
          {"result", !job.result.empty() ? parsed(job.result)
                     : result            ? parsed(result->line)
                                         : Json(nullptr)},
          {"submitted_ns", job.submitted_ns},
          {"started_ns", job.started_ns},
          {"ended_ns", job.ended_ns},
          {"account", account_of(job.owner)},
          {"qos", qos_of(job.owner)},
          {"priority", !job.ended() && waiting ? Json(waiting->priority) : Json(nullptr)},
          {"preemptions", job.preemptions},
          {"cost_microusd", c.core.state().cost_microusd(job, c.core.now_ns())},
          {"lost_steps", job.lost_steps},
          {"checkpoint_step", job.checkpoint_step},
          {"retries_used", job.retries_used}};
}

namespace {

Json files_json(const std::vector<ledger::ModelFile>& files) {
  Json out = Json::array();
  for (const auto& file : files)
    out.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  return out;
}

}  // namespace

Json data_set_json(const ledger::DataSetAdded& set) {
  Json about = parse_json(set.about, "dataset.json").value_or(Json::object());
  return {{"name", set.name},   {"version", set.version},         {"path", set.path},
          {"bytes", set.bytes}, {"files", files_json(set.files)}, {"about", std::move(about)}};
}

Json model_json(const ledger::ModelRegistered& model) {
  Json files = files_json(model.files);
  return {{"name", model.name},   {"version", model.version},  {"path", model.path},
          {"bytes", model.bytes}, {"files", std::move(files)}, {"job", model.job}};
}

Json deployment_json(const Controller& c, const ledger::Deployment& deployment) {
  const auto& created = deployment.created;
  const auto job = c.core.state().jobs.find(created.job);
  const std::string slice = job == c.core.state().jobs.end() ? created.slice : job->second.slice;
  std::string reason = deployment.reason;
  if (const Waiting* waiting = c.jobs.waiting(created.job); waiting && deployment.state == "starting")
    reason = waiting->text;
  return {{"name", created.name},
          {"model", created.model},
          {"version", created.version},
          {"slice", slice.empty() ? Json(nullptr) : Json(slice_name(c, slice))},
          {"job", created.job},
          {"state", deployment.state},
          {"url", deployment.url},
          {"tokens_per_minute", created.tokens_per_minute},
          {"reason", reason}};
}

Json usage_json(const Controller& c) {
  Json items = Json::array(), tokens = Json::array();
  ledger::GpuNs gpu_ns = 0;
  int64_t microusd = 0;
  for (const auto& [id, slice] : c.core.state().slices) {
    if (!sees(c.core, slice.owner)) continue;
    const ledger::GpuNs slice_ns = slice.gpu_ns_at(c.core.now_ns());
    const int64_t slice_microusd = slice.cost_microusd_at(c.core.now_ns());
    if (slice.ready_ns == 0) continue;
    items.push_back({{"slice", slice.terms.name},
                     {"id", id},
                     {"series", slice.terms.series},
                     {"gpus", slice.terms.gpus},
                     {"gpu_ns", static_cast<int64_t>(std::min<ledger::GpuNs>(slice_ns, INT64_MAX))},
                     {"account", slice.owner.account},
                     {"microusd", slice_microusd}});
    gpu_ns += slice_ns;
    microusd += slice_microusd;
  }
  for (const auto& [key, use] : c.core.state().tokens) {
    const auto of = c.core.state().keys.find(key.second);
    const std::string tenant = of == c.core.state().keys.end() ? "" : of->second.tenant;
    if (!is_within(c.core.policy(), tenant, c.core.caller().account)) continue;
    tokens.push_back({{"deployment", key.first},
                      {"key", key.second},
                      {"requests", use.requests},
                      {"prompt_tokens", use.prompt_tokens},
                      {"completion_tokens", use.completion_tokens}});
  }
  return {{"items", std::move(items)},
          {"tokens", std::move(tokens)},
          {"gpu_seconds", static_cast<double>(gpu_ns) / 1e9},
          {"microusd", microusd}};
}

}  // namespace th::control
