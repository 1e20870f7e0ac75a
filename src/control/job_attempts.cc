// Attempts of jobs: how a gang is started, and what its end means.

#include <fmt/format.h>
#include <string.h>
#include <sys/sysinfo.h>

#include <algorithm>

#include "base/log.h"
#include "control/batch.h"
#include "control/jobs.h"
#include "control/placing.h"
#include "control/stacks.h"
#include "launch/rendezvous.h"
#include "node/tenant.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::JobState;

std::string exit_text(const launch::RankChanged& cause) {
  const node::TaskReport& report = cause.report;
  if (!report.signal && !report.exit_code) return "ended: " + report.reason;
  std::string text;
  if (report.signal) {
    const char* name = ::sigabbrev_np(*report.signal);
    text = fmt::format("was killed by signal {} (SIG{})", *report.signal, name ? name : "?");
  } else {
    text = fmt::format("exited with code {}", *report.exit_code);
  }
  // The node's own words repeat this and may go on: "killed by SIGKILL: out of memory, ...".
  const size_t more = report.reason.find(": ");
  return more == std::string::npos ? text : text + report.reason.substr(more);
}

int64_t gpus_of_series(const fleet::Fleet& fleet, const std::string& series) {
  const auto index = fleet::find_series(series);
  return index ? fleet.num_gpus(*index) : 0;
}

/// LOCAL accelerators are shares of this machine's CPU; others leave a rank's threads to it.
int omp_threads(const fleet::Fleet& fleet, const std::string& series, int64_t gpus_of_rank) {
  if (series != "LOCAL") return 1;
  const int64_t all = std::max<int64_t>(1, gpus_of_series(fleet, series));
  return static_cast<int>(std::max<int64_t>(1, ::get_nprocs() * gpus_of_rank / all));
}

}  // namespace

std::vector<std::string> serve_command(const std::string& deployment, const std::string& address,
                                       int64_t port) {
  return {"th-serve",           "--model", "model",   "--address", address, "--port",
          std::to_string(port), "--name",  deployment};
}

void Jobs::start_attempt(const Job& job, const ledger::Slice& slice, const reserve::Plan& plan) {
  std::vector<ledger::RankPlace> places;
  const auto live = live_vms(core_.state(), slice);
  for (const reserve::HostGpus& part : plan.hosts) {
    const ledger::Vm* vm = live.at(core_.fleet().host(part.host).id);
    ledger::RankPlace& place = places.emplace_back(ledger::RankPlace{vm->id, {}});
    for (int64_t gpu = 0; gpu < 32; ++gpu) {
      if (part.gpus >> gpu & 1) place.gpus.push_back(gpu);
    }
  }
  const request::JobSpec& spec = spec_of(job);
  std::vector<ledger::RankPlace> ranks;
  if (job.serves()) {
    ranks = places;
  } else if (spec.batch) {
    ranks = {places[0]};
  } else {
    if (spec.ntasks > 0) {
      auto laid = lay_out(places, spec.ntasks, spec.ntasks_per_node);
      ranks = laid ? *std::move(laid) : *lay_out(places, spec.ntasks, 0);
    }
    for (const ledger::RankPlace& place : places) {
      for (int64_t gpu : place.gpus) {
        if (spec.ntasks == 0) ranks.push_back({place.vm, {gpu}});
      }
    }
  }
  start_ranks(job, slice.terms.slice, std::move(ranks),
              spec.gpu_milli < 1000 ? spec.gpu_milli : plan.gpus * 1000);
  if (!spec.batch || places.size() < 2 || !job.attempt_open) return;
  places.erase(places.begin());
  core_.stage(ledger::AttemptReserved{job.submitted.job, job.attempt, std::move(places)});
}

void Jobs::start_ranks(const Job& job, const std::string& slice, std::vector<ledger::RankPlace> ranks,
                       int64_t gpu_milli) {
  const std::string id = job.submitted.job;
  ledger::AttemptStarted started;
  started.job = id, started.slice = slice, started.attempt = job.attempt + 1;
  started.ranks = std::move(ranks);
  std::set<int> taken;
  for (const auto& [other, active] : core_.active_jobs()) taken.insert(static_cast<int>(active->master_port));
  const std::string salt = fmt::format("{}/{}.{}", core_.state_dir().string(), id, started.attempt);
  started.master_port = launch::choose_port(salt, taken);
  core_.stage(std::move(started));
  if (gpu_milli != job.gpu_milli) core_.stage(ledger::AttemptSized{id, job.attempt, gpu_milli});
  waiting_.erase(id);
  gangs_.insert(id);
  // Not at once: what is reserved beside its ranks is told to them too.
  unstarted_.push_back(id);
}

Status Jobs::check_launcher(const request::JobSpec& spec) const {
  if (core_.nodes_start_ranks() || (!spec.batch && spec.step_of.empty() && spec.gpu_milli == 1000)) return {};
  return fail(
      Code::kFailedPrecondition,
      "gangs run under Slurm here, which takes commands and recipes on whole GPUs; give batch scripts to "
      "Slurm's own sbatch");
}

void Jobs::start_gangs() {
  for (const std::string& id : std::exchange(unstarted_, {})) {
    const Job& job = core_.state().jobs.at(id);
    Status launched = check_launcher(spec_of(job));
    if (const auto user = stager_.user_of(account_of(job.owner)); launched && !user)
      launched = fail(user.error());
    if (launched) launched = core_.launcher().start(gang_of(job));
    if (!launched) {
      gangs_.erase(id);
      cancel(id, "failed", "it could not be started: " + launched.error().message);
    }
  }
}

launch::GangSpec Jobs::gang_of(const Job& job) {
  const request::JobSpec& spec = spec_of(job);
  const ledger::Slice& slice = core_.state().slices.at(job.slice);
  launch::GangSpec gang;
  gang.job = job.submitted.job, gang.name = job.submitted.name, gang.attempt = static_cast<int>(job.attempt);
  gang.argv = spec.command;
  gang.env = spec.env, gang.files = spec.files, gang.stage = spec.stage, gang.workdir = spec.workdir;
  gang.memory_bytes = spec.memory_bytes.value_or(0), gang.grace_ms = static_cast<int>(grace_ms(job));
  gang.master_port = static_cast<int>(job.master_port);
  gang.service = job.serves();
  for (const ledger::Rank& rank : job.ranks) {
    const ledger::Vm& vm = core_.state().vms.at(rank.place.vm);
    launch::RankPlace place{vm.id,
                            core_.nodes_start_ranks() ? vm.id : vm.host,
                            vm.address.empty() ? "127.0.0.1" : vm.address,
                            {}};
    place.gpus.assign(rank.place.gpus.begin(), rank.place.gpus.end());
    gang.ranks.push_back(std::move(place));
  }
  gang.omp_threads =
      omp_threads(core_.fleet(), slice.terms.series, static_cast<int64_t>(gang.ranks[0].gpus.size()));
  if (spec.batch || !spec.step_of.empty()) add_batch(job, spec, gang);
  if (spec.gpu_milli < 1000) {  // what NVIDIA's MPS holds it to
    gang.fixed_env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] =
        std::to_string(std::max<int64_t>(1, spec.gpu_milli / 10));
  }
  if (job.serves()) {
    const std::string& address = gang.ranks[0].address;
    gang.argv = serve_command(spec.name, address, job.master_port);
    gang.ready_url = fmt::format("http://{}:{}/health", address, job.master_port);
  }
  gang.fixed_env[node::kSliceVariable] = job.slice;
  gang.fixed_env[node::kAccountVariable] = account_of(job.owner);
  if (!slice.requested.stack.empty()) {
    // Its version was found when the slice was made, and stays.
    if (const auto stack = find_stack(core_.state(), slice.requested.stack))
      gang.env.insert(stack->environment.begin(), stack->environment.end());
  }
  return gang;
}

/// What makes a gang a batch script, or a step of one.
void Jobs::add_batch(const Job& job, const request::JobSpec& spec, launch::GangSpec& gang) {
  const Job& script = spec.batch ? job : core_.state().jobs.at(spec.step_of);
  const request::JobSpec& script_spec = spec_of(script);
  BatchNames names{core_.state().slices.at(job.slice).terms.name, core_.fleet().name(), {}};
  if (!script_spec.array_job.empty()) {
    for (const Job* task : jobs_meant(core_.state(), script_spec.array_job, specs())) {
      names.array.push_back(spec_of(*task).array_index);
    }
  }
  gang.fixed_env = batch_env(script, script_spec, names);
  gang.fixed_env["TH_KEY"] = core_.job_key(script.submitted.job);
  if (!spec.batch) {
    // Its ranks and nodes are its own; the job that it belongs to is the script's.
    for (const char* own : {"SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES", "SLURM_TASKS_PER_NODE", "TH_GPUS",
                            "CUDA_VISIBLE_DEVICES"}) {
      gang.fixed_env.erase(own);
    }
    gang.fixed_env["SLURM_JOB_ID"] = gang.fixed_env["SLURM_JOBID"];
    gang.fixed_env["SLURM_JOB_NAME"] = script.submitted.name;
    gang.fixed_env["SLURM_STEP_ID"] = gang.fixed_env["SLURM_STEPID"] = std::to_string(spec.array_index);
    return;
  }
  gang.argv = batch_argv(spec);
  gang.files[kSrunFile] = kSrunText;
  const std::string& node = job.ranks[0].place.vm;
  if (!spec.output.empty()) gang.fixed_env["TH_OUTPUT"] = expand_pattern(spec.output, job, spec, node);
  if (!spec.error.empty()) gang.fixed_env["TH_ERROR"] = expand_pattern(spec.error, job, spec, node);
}

void Jobs::take_events() {
  refused_.clear();
  auto take_all = [this](launch::Launcher& launcher) {
    for (auto events = launcher.take_events(); !events.empty(); events = launcher.take_events()) {
      for (const launch::Event& event : events) {
        if (take_check && take_check(event)) continue;
        std::visit([this](const auto& e) { take(e); }, event);
      }
    }
  };
  take_all(core_.launcher());
  take_all(
      core_.node_launcher());  // the same, unless another one starts jobs: checks always run on the nodes
}

void Jobs::take(const launch::RankChanged& changed) {
  const node::TaskReport& report = changed.report;
  if (report.state != node::TaskState::kExited) return;
  const auto found = core_.state().jobs.find(report.id.job);
  if (found == core_.state().jobs.end()) return;
  const Job& job = found->second;
  const bool known = job.attempt_open && job.attempt == report.id.attempt &&
                     static_cast<size_t>(report.id.rank) < job.ranks.size();
  if (!known || job.ranks[static_cast<size_t>(report.id.rank)].exited) return;
  core_.stage(ledger::RankExited{report.id.job, changed.vm, report.reason, report.id.attempt, report.id.rank,
                                 report.exit_code.value_or(-1), report.signal.value_or(0)});
}

void Jobs::take(const launch::MetricsArrived& arrived) {
  const std::string task = arrived.line.id.text();
  if (refused_.count(task)) return;  // in order, or not at all
  const auto stored = output_.add_metrics(arrived.line);
  if (!stored) {
    log_warn("{}: a metrics line could not be kept: {}", arrived.line.id.job, stored.error().message);
    refused_.insert(task);
    core_.node_launcher().refuse_metrics(arrived.line.id);
    return;
  }
  core_.launcher().ack_metrics(arrived.line.id, arrived.line.line_no);
  if (!*stored) return;
  const StoredLine& line = **stored;
  const std::string& id = arrived.line.id.job;
  const auto job = core_.state().jobs.find(id);
  if (job == core_.state().jobs.end()) return;
  if (line.event == "checkpoint" && line.step >= 0 && line.step != job->second.checkpoint_step) {
    core_.stage(ledger::CheckpointSaved{id, line.attempt, line.step});
    grow_at_checkpoint(job->second);
  }
  if (on_metrics) on_metrics(id, line);
}

/// Onto GPUs of its slice that it asked for and that nobody uses or waits for.
void Jobs::grow_at_checkpoint(const Job& job) {
  const request::JobSpec& spec = spec_of(job);
  const auto slice = core_.state().slices.find(job.slice);
  const int64_t gpus = job.gpu_milli / 1000;
  if (!spec.can_rescale || !job.attempt_open || job.cancelling() || gpus >= spec.gpus || closing_ ||
      slice == core_.state().slices.end() || slice->second.state != ledger::SliceState::kReady)
    return;
  const bool shrinks = slice->second.resize && slice->second.resize->asked.gpus < slice->second.terms.gpus;
  const int64_t more = gpus_within(spec, gpus + unused_gpus(slice->second));
  const bool somebody_waits = std::ranges::any_of(core_.active_jobs(), [&](const auto& active) {
    const Job& other = *active.second;
    return other.slice == job.slice && !other.attempt_open && !other.cancelling() &&
           other.submitted.kind != "step" && !hold_back(other);
  });
  if (shrinks || somebody_waits || more <= gpus || more > gpus + unused_gpus(slice->second)) return;
  preempt_job(job, "itself",
              fmt::format("to go on with {} GPUs instead of {}, which slice '{}' has free", more, gpus,
                          slice->second.terms.name),
              core_.now_ns() + grace_ms(job) * kMillisecond);
}

void Jobs::take(const launch::GangChanged& changed) {
  if (changed.state == launch::GangState::kGone) {
    gangs_.erase(changed.job);
    planned_version_ = -1;  // its GPUs are free, which no event tells
    return;
  }
  const auto found = core_.state().jobs.find(changed.job);
  if (found == core_.state().jobs.end()) return;
  const Job& job = found->second;
  if (job.attempt != changed.attempt || !job.attempt_open) return;
  switch (changed.state) {
    case launch::GangState::kRunning:
    case launch::GangState::kReady:
      if (job.serves() && changed.state == launch::GangState::kRunning) break;
      if (job.state != JobState::kRunning) core_.stage(ledger::AttemptRunning{changed.job, changed.attempt});
      if (job.serves() && on_ready) {
        on_ready(changed.job, fmt::format("http://{}:{}", core_.state().vms.at(job.ranks[0].place.vm).address,
                                          job.master_port));
      }
      break;
    case launch::GangState::kSucceeded: {
      const StoredLine* last = output_.last(changed.job, "progress");
      core_.stage(ledger::AttemptEnded{changed.job, "every rank exited with 0", changed.attempt,
                                       last ? std::max<int64_t>(0, last->step) : 0, 0, true, false});
      core_.launcher().stop(changed.job);
      break;
    }
    case launch::GangState::kFailed:
      attempt_failed(job, changed);
      core_.launcher().stop(changed.job);
      break;
    default:
      break;
  }
}

void Jobs::attempt_failed(const Job& job, const launch::GangChanged& changed) {
  ledger::AttemptEnded ended;
  ended.job = changed.job, ended.attempt = changed.attempt, ended.counts = true;
  ended.reason = "a rank failed";
  if (changed.cause) {
    const node::TaskReport& report = changed.cause->report;
    ended.counts = !changed.cause->lost;
    ended.reason = changed.cause->lost ? fmt::format("rank {} is lost: {}", report.id.rank, report.reason)
                                       : fmt::format("rank {} on node {} {}", report.id.rank,
                                                     changed.cause->vm, exit_text(*changed.cause));
  }
  if (const StoredLine* last = output_.last(changed.job, "progress", changed.attempt)) {
    ended.last_step = std::max<int64_t>(0, last->step);
    ended.lost_steps = std::max<int64_t>(0, ended.last_step - job.checkpoint_step);
    ended.reason +=
        fmt::format("; at least {} steps lost (it had reached step {}, the last checkpoint is of step {})",
                    ended.lost_steps, ended.last_step, job.checkpoint_step);
  }
  log_warn("{}: attempt {}: {}", changed.job, changed.attempt, ended.reason);
  const bool node_fail = !ended.counts && !spec_of(job).requeue;
  core_.stage(std::move(ended));
  if (node_fail) core_.stage(ledger::JobCause{changed.job, "node_fail"});
}

}  // namespace th::control
