#include "control/deployments.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"

namespace th::control {
namespace {

using ledger::Deployment;

constexpr int64_t kServeRetries = 3;  // in a row, without having been ready in between

bool is_live(const Deployment& deployment) {
  return deployment.state == "starting" || deployment.state == "ready";
}

std::vector<std::string> model_names(const ledger::State& state) {
  std::vector<std::string> out;
  for (const auto& [name, versions] : state.models) out.push_back(name);
  return out;
}

}  // namespace

Deployments::Deployments(Core& core, Jobs& jobs) : core_(core), jobs_(jobs) {
  jobs_.on_ready = [this](const std::string& job, const std::string& url) { ready(job, url); };
}

Status Deployments::create(const DeploySpec& spec) {
  TH_RETURN_IF_ERROR(check_name(spec.name, "deployment"));
  const auto old = core_.state().deployments.find(spec.name);
  if (old != core_.state().deployments.end() && is_live(old->second)) {
    return fail(Code::kAlreadyExists,
                fmt::format("deployment '{}' exists and is {}; undeploy it first, or choose another name",
                            spec.name, old->second.state));
  }
  const auto model = core_.state().models.find(spec.model);
  if (model == core_.state().models.end()) {
    return fail(Code::kNotFound,
                fmt::format("model '{}' is not in the registry{}; th models lists those that are", spec.model,
                            did_you_mean(spec.model, model_names(core_.state()))));
  }
  const ledger::ModelRegistered& version = model->second.back();
  TH_RETURN_IF_ERROR(check_one_host(spec));
  request::JobSpec job;
  job.name = spec.name, job.slice = spec.slice ? spec.slice : slice_of_model(version.job, spec.gpus);
  job.gpus = spec.gpus, job.retries = kServeRetries;
  job.stage["model"] = version.path;
  job.command = serve_command(spec.name, "127.0.0.1", 0);  // until its node and port are known
  TH_RETURN_IF_ERROR(request::validate(job));
  TH_TRY(const std::string id, jobs_.submit(job, "serve"));
  const ledger::Job& submitted = core_.state().jobs.at(id);
  core_.stage(ledger::DeploymentCreated{spec.name, version.name, version.version, submitted.slice, id,
                                        spec.tokens_per_minute});
  return {};
}

/// A replica is one process, so one host has to have its GPUs.
Status Deployments::check_one_host(const DeploySpec& spec) const {
  int64_t most = 0;
  const ledger::Slice* slice = spec.slice ? core_.state().find_slice(*spec.slice) : nullptr;
  if (spec.slice && !slice) return {};  // Jobs::submit says so
  if (slice) {
    for (const ledger::Share& share : slice->terms.hosts) most = std::max(most, share.gpus);
  } else {
    for (const fleet::Host& host : core_.fleet().hosts()) most = std::max<int64_t>(most, host.gpus);
  }
  if (spec.gpus <= most) return {};
  return fail(
      Code::kUnsatisfiable,
      fmt::format("deployment '{}' asks for {} GPUs on one node, and a host of {} has {}; ask for at most {}",
                  spec.name, spec.gpus,
                  slice ? "slice '" + slice->terms.name + "'" : "fleet '" + core_.fleet().name() + "'", most,
                  most));
}

std::optional<std::string> Deployments::slice_of_model(const std::string& job_id, int64_t gpus) const {
  const ledger::State& state = core_.state();
  const auto job = state.jobs.find(job_id);
  if (job == state.jobs.end()) return std::nullopt;
  const auto found = state.slices.find(job->second.slice);
  if (found == state.slices.end() || found->second.state != ledger::SliceState::kReady) return std::nullopt;
  const ledger::Slice& slice = found->second;
  std::map<std::string, int64_t> used;  // by VM
  for (const auto& [id, active] : core_.active_jobs()) {
    const ledger::Job& other = *active;
    if (other.slice != slice.terms.slice) continue;
    if (other.attempt == 0) return std::nullopt;  // it waits for the GPUs that are free
    for (const ledger::Rank& rank : other.ranks)
      used[rank.place.vm] += static_cast<int64_t>(rank.place.gpus.size());
  }
  for (const ledger::Share& share : slice.terms.hosts) {
    const ledger::Vm* vm = live_vm(state, slice, share.host);
    if (vm && vm->state == ledger::VmState::kReady && vm->gpus - used[vm->id] >= gpus)
      return slice.terms.slice;
  }
  return std::nullopt;
}

Status Deployments::stop(const std::string& name, const std::string& reason) {
  const auto found = core_.state().deployments.find(name);
  if (found == core_.state().deployments.end()) {
    return fail(Code::kNotFound,
                "deployment '" + name + "' does not exist; th deployments lists those that do");
  }
  if (!is_live(found->second)) return {};
  jobs_.cancel(found->second.created.job, "cancelled", reason);
  core_.stage(ledger::DeploymentStopped{name, reason, false});
  return {};
}

void Deployments::ready(const std::string& job, const std::string& url) {
  for (const auto& [name, deployment] : core_.state().deployments) {
    if (deployment.created.job != job || !is_live(deployment) || deployment.url == url) continue;
    core_.stage(ledger::DeploymentReady{name, url});
    return;
  }
}

void Deployments::step() {
  std::vector<ledger::Event> events;
  for (const auto& [name, deployment] : core_.state().deployments) {
    if (!is_live(deployment)) continue;
    const ledger::Job& job = core_.state().jobs.at(deployment.created.job);
    if (job.ended() || job.cancelling()) {
      events.push_back(ledger::DeploymentStopped{name, job.reason, job.state == ledger::JobState::kFailed});
    } else if (deployment.state == "ready" && job.state != ledger::JobState::kRunning) {
      events.push_back(ledger::DeploymentUnready{name, job.reason});
    }
  }
  for (ledger::Event& event : events) core_.stage(std::move(event));
}

void Deployments::committed(const ledger::Entry& entry) {
  const std::string kind = ledger::kind_of(entry.event);
  const bool of_keys = kind.starts_with("key_") && kind != ledger::KeyUsed::kKind;
  if (kind.starts_with("deployment_") || of_keys) generation_ = entry.seq;
}

Json Deployments::gateway_config() const {
  Json deployments = Json::array(), keys = Json::array();
  for (const auto& [name, deployment] : core_.state().deployments) {
    if (!is_live(deployment)) continue;
    Json replicas = Json::array();
    if (deployment.state == "ready")
      replicas.push_back({{"id", deployment.created.job}, {"url", deployment.url}});
    deployments.push_back({{"name", name},
                           {"model", deployment.created.model},
                           {"tokens_per_minute", deployment.created.tokens_per_minute},
                           {"replicas", std::move(replicas)}});
  }
  for (const auto& [id, key] : core_.state().keys) {
    if (key.valid_at(core_.now_ns()) && key.has_scope(ledger::kScopeInference))
      keys.push_back({{"id", id}, {"sha256", key.sha256}});
  }
  return {{"generation", generation_}, {"deployments", std::move(deployments)}, {"keys", std::move(keys)}};
}

void Deployments::wait_for_config(int64_t have_generation, int64_t wait_ns, http::Responder responder) {
  waiting_.push_back({std::move(responder), have_generation, core_.monotonic_ns() + wait_ns});
}

void Deployments::answer_waiting() {
  std::erase_if(waiting_, [&](const Waiting& waiting) {
    if (waiting.have_generation == generation_ && core_.monotonic_ns() < waiting.deadline_ns) return false;
    waiting.responder.send(gateway_config());
    return true;
  });
}

Result<int64_t> Deployments::take_usage(const std::string& journal,
                                        std::vector<ledger::UsageRecord> records) {
  const auto known = core_.state().journals.find(journal);
  const int64_t taken = known == core_.state().journals.end() ? 0 : known->second;
  std::erase_if(records, [&](const ledger::UsageRecord& record) { return record.seq <= taken; });
  for (size_t i = 1; i < records.size(); ++i) {
    if (records[i].seq <= records[i - 1].seq) return fail(Code::kInvalidArgument, "records: seq has to rise");
  }
  if (records.empty()) return taken;
  const int64_t last = records.back().seq;
  core_.stage(ledger::UsageRecorded{journal, std::move(records)});
  return last;
}

}  // namespace th::control
