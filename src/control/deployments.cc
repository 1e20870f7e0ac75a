#include "control/deployments.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "control/visible.h"

namespace th::control {
namespace {

using ledger::Deployment;

constexpr int64_t kTellNs = 2 * kSecond;     // a gateway polls again as soon as it was answered
constexpr int64_t kSilentNs = 15 * kSecond;  // longer than it waits for an answer: it is gone
constexpr int64_t kServeRetries = 3;         // in a row, without having been ready in between

bool is_live(const Deployment& deployment) {
  return deployment.state == "starting" || deployment.state == "ready";
}

std::vector<std::string> model_names(const Core& core) {
  std::vector<std::string> out;
  for (const auto& [name, versions] : core.state().models) {
    if (find_model(core, name)) out.push_back(name);
  }
  return out;
}

/// Whose keys may use what is of the account: its own and those of the tenants above it.
std::vector<std::string> tenants_of(const Core& core, const std::string& account) {
  std::vector<std::string> out = {account};
  const reserve::QueuePolicy& policy = core.policy();
  for (const auto* at = policy.find_account(account); at; at = policy.find_account(at->parent)) {
    if (at->name != account) out.push_back(at->name);
  }
  out.emplace_back();  // the platform
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
    return fail(
        Code::kAlreadyExists,
        sees(core_, old->second)
            ? fmt::format("deployment '{}' exists and is {}; undeploy it first, or choose another name",
                          spec.name, old->second.state)
            : fmt::format("the name '{}' is not free: deployments of all tenants have different names; "
                          "choose another",
                          spec.name));
  }
  const ledger::ModelRegistered* model = find_model(core_, spec.model);
  if (!model) {
    return fail(Code::kNotFound,
                fmt::format("model '{}' is not in the registry{}; th models lists those that are", spec.model,
                            did_you_mean(spec.model, model_names(core_))));
  }
  const ledger::ModelRegistered version = *model;
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
  const ledger::Slice* slice = spec.slice ? find_slice(core_, *spec.slice) : nullptr;
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
  if (const auto* created = std::get_if<ledger::DeploymentCreated>(&entry.event))
    jobs_of_name_[created->name][entry.seq] = created->job;
}

std::string Deployments::job_at(const std::string& name, int64_t seq) const {
  const auto named = jobs_of_name_.find(name);
  if (named == jobs_of_name_.end()) return {};
  const auto after = named->second.upper_bound(seq);
  return after == named->second.begin() ? std::string() : std::prev(after)->second;
}

Json Deployments::gateway_config() const {
  Json deployments = Json::array(), keys = Json::array();
  for (const auto& [name, deployment] : core_.state().deployments) {
    if (!is_live(deployment)) continue;
    const ledger::Job& job = core_.state().jobs.at(deployment.created.job);
    Json replicas = Json::array();
    if (deployment.state == "ready")
      replicas.push_back({{"id", deployment.created.job}, {"url", deployment.url}});
    deployments.push_back({{"name", name},
                           {"model", deployment.created.model},
                           {"tokens_per_minute", deployment.created.tokens_per_minute},
                           {"tenants", tenants_of(core_, account_of(job.owner))},
                           {"replicas", std::move(replicas)}});
  }
  for (const auto& [id, key] : core_.state().keys) {
    if (key.valid_at(core_.now_ns()) && key.has_scope(ledger::kScopeInference))
      keys.push_back({{"id", id},
                      {"sha256", key.sha256},
                      {"tenant", key.tenant},
                      {"expires_ns", key.expires_ns},
                      {"tokens_per_minute", key.tokens_per_minute}});
  }
  return {{"generation", generation_}, {"deployments", std::move(deployments)}, {"keys", std::move(keys)}};
}

void Deployments::wait_for_config(const std::string& gateway, int64_t have_generation, int64_t wait_ns,
                                  http::Responder responder) {
  if (!gateway.empty()) gateways_[gateway] = {have_generation, core_.monotonic_ns()};
  waiting_.push_back({std::move(responder), have_generation, core_.monotonic_ns() + wait_ns});
}

void Deployments::when_gateways_know(std::function<void(bool)> then) {
  telling_.push_back({std::move(then), generation_, core_.monotonic_ns() + kTellNs});
}

void Deployments::answer_waiting() {
  const int64_t now_ns = core_.monotonic_ns();
  std::erase_if(waiting_, [&](const Waiting& waiting) {
    if (waiting.have_generation == generation_ && now_ns < waiting.deadline_ns) return false;
    waiting.responder.send(gateway_config());
    return true;
  });
  std::erase_if(gateways_, [&](const auto& item) { return now_ns - item.second.heard_ns > kSilentNs; });
  std::erase_if(telling_, [&](const Telling& telling) {
    const bool told = std::ranges::all_of(
        gateways_, [&](const auto& item) { return item.second.have_generation >= telling.generation; });
    if (!told && now_ns < telling.deadline_ns) return false;
    telling.then(told);
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
  for (const ledger::UsageRecord& record : records) on_key_used(record.key_id, record.time_ns);
  core_.stage(ledger::UsageRecorded{journal, std::move(records)});
  return last;
}

}  // namespace th::control
