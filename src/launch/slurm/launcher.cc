#include "launch/slurm/launcher.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "http/client.h"

namespace th::launch {
namespace {

namespace fs = std::filesystem;

constexpr const char* kApi = "/slurm/v0.0.38";
constexpr int kSignalBase = 128;  // a shell's exit status of what a signal ended

int64_t now_ns() { return Env::real().monotonic_ns(); }

Status make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail(errno_error(folder.string(), error.value()));
  return {};
}

/// Written once the job is in Slurm's hands, for who starts the gang again when Slurm has forgotten it.
fs::path id_file(const AttemptFiles& files) { return files.folder / "slurm_id"; }

Status check_gang(const GangSpec& gang) {
  const auto bad = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument, fmt::format("job {}: {}", gang.job, problem));
  };
  TH_RETURN_IF_ERROR(check_name(gang.job, "job"));
  if (gang.attempt < 1) return bad("attempts count from 1");
  if (gang.argv.empty() || gang.argv[0].empty()) return bad("has no command");
  if (gang.ranks.empty()) return bad("has no ranks");
  if (gang.ready_url) return bad("what has to say that it is ready runs on th-node, not under Slurm");
  for (const RankPlace& place : gang.ranks) TH_RETURN_IF_ERROR(check_name(place.node, "node of a rank"));
  for (const auto& [path, text] : gang.files) TH_RETURN_IF_ERROR(node::check_inside_path(path, "files"));
  for (const auto& [path, from] : gang.stage) TH_RETURN_IF_ERROR(node::check_inside_path(path, "stage"));
  return {};
}

}  // namespace

SlurmLauncher::SlurmLauncher(SlurmOptions options)
    : options_(std::move(options)), thread_([this](std::stop_token stop) { run(stop); }) {}
SlurmLauncher::~SlurmLauncher() = default;

Status SlurmLauncher::start(GangSpec spec) {
  TH_RETURN_IF_ERROR(check_gang(spec));
  const std::lock_guard lock(mutex_);
  if (auto it = gangs_.find(spec.job); it != gangs_.end()) {
    if (it->second.spec.attempt == spec.attempt) return {};
    return fail(Code::kFailedPrecondition,
                fmt::format("job {}: attempt {} is not gone yet; stop it and wait before attempt {} starts",
                            spec.job, it->second.spec.attempt, spec.attempt));
  }
  Gang gang;
  gang.started_ns = now_ns();
  for (size_t rank = 0; rank < spec.ranks.size(); ++rank) {
    node::TaskReport report;
    report.id = {spec.job, spec.attempt, static_cast<int>(rank)};
    gang.ranks.push_back(std::move(report));
  }
  if (auto restored = restored_.extract(gang.ranks[0].id.text())) gang.metrics_stored = restored.mapped();
  const std::string job = spec.job;
  gang.spec = std::move(spec);
  gangs_[job] = std::move(gang);
  woken_ = true;
  wake_.notify_all();
  return {};
}

void SlurmLauncher::stop(std::string_view job) {
  const std::lock_guard lock(mutex_);
  auto it = gangs_.find(job);
  if (it == gangs_.end()) return;
  it->second.stopping = true;
  woken_ = true;
  wake_.notify_all();
}

void SlurmLauncher::signal(std::string_view job, int number, bool) {
  const std::lock_guard lock(mutex_);
  auto it = gangs_.find(job);
  if (it == gangs_.end() || it->second.stopping) return;
  it->second.signals.push_back(number);
  woken_ = true;
  wake_.notify_all();
}

void SlurmLauncher::ack_metrics(const node::TaskId& task, int64_t line_no) {
  const std::lock_guard lock(mutex_);
  if (auto it = gangs_.find(task.job); it != gangs_.end() && it->second.spec.attempt == task.attempt)
    it->second.metrics_stored = std::max(it->second.metrics_stored, line_no);
}

void SlurmLauncher::restore_metrics(const node::TaskId& task, int64_t line_no) {
  const std::lock_guard lock(mutex_);
  restored_[task.text()] = line_no;
}

std::vector<Event> SlurmLauncher::take_events() {
  const std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

fs::path SlurmLauncher::log_of(const node::TaskId& task) const {
  return AttemptFiles(job_folder(task.job), task.attempt).log(task.rank);
}

void SlurmLauncher::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    round();
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop, std::chrono::nanoseconds(options_.poll_ns), [this] { return woken_; });
    woken_ = false;
  }
}

/// One answer of Slurm for all gangs, then what each needs.
void SlurmLauncher::round() {
  std::vector<std::string> jobs;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [job, gang] : gangs_) jobs.push_back(job);
  }
  if (jobs.empty()) return;
  auto answer = call("GET", "/jobs");
  auto known = answer ? parse_jobs(*answer) : fail(answer.error());
  if (const std::string errors = answer ? errors_of(*answer) : ""; !errors.empty()) {
    known = fail(Code::kUnavailable,
                 fmt::format("slurmrestd at {}: {}; is slurmctld up, and the token of user {} good?",
                             options_.url, errors, options_.user));
  }
  const std::string problem = known ? "" : known.error().message;
  if (std::exchange(problem_, problem) != problem && !problem.empty()) log_warn("Slurm: {}", problem);
  if (!known) {
    const std::lock_guard lock(mutex_);
    for (auto& [job, gang] : gangs_) {
      if (gang.slurm_id == 0 && now_ns() - gang.started_ns > options_.submit_timeout_ns)
        fail_gang(gang, known.error().message, false);
    }
    return;
  }
  for (const std::string& job : jobs) {
    submit(job, *known);
    send_wishes(job);
    const std::lock_guard lock(mutex_);
    const int64_t id = gangs_.at(job).slurm_id;
    const auto found =
        std::find_if(known->begin(), known->end(), [&](const SlurmJob& j) { return j.id == id; });
    take_job(job, found == known->end() ? nullptr : &*found);
  }
}

Result<Json> SlurmLauncher::call(const char* method, const std::string& path, const Json* body) {
  http::Call call{
      .method = method, .url = options_.url + kApi + path, .timeout_ns = options_.call_timeout_ns};
  call.headers = {{"X-SLURM-USER-NAME", options_.user}, {"X-SLURM-USER-TOKEN", options_.token}};
  if (body != nullptr) {
    call.headers.emplace_back("Content-Type", "application/json");
    call.body = dump_json(*body);
  }
  auto response = http::fetch(call);
  if (!response) {
    return fail(response.error().code,
                fmt::format("slurmrestd does not answer at {}: {}; is it running there?", options_.url,
                            response.error().message));
  }
  auto answer = parse_json(response->body, "slurmrestd");
  if (!answer) {
    return fail(
        Code::kUnauthenticated,
        fmt::format("slurmrestd at {} answers {} '{}'; is the token of user {} good, and not expired?",
                    options_.url, response->status, response->body.substr(0, 80), options_.user));
  }
  return answer;
}

/// Hands the gang over, unless Slurm has it.
void SlurmLauncher::submit(const std::string& job, const std::vector<SlurmJob>& known) {
  GangSpec spec;
  {
    const std::lock_guard lock(mutex_);
    Gang& gang = gangs_.at(job);
    if (gang.slurm_id != 0 || gang.state == GangState::kFailed) return;
    const std::string name = slurm_job_name(gang.spec);
    for (const SlurmJob& other : known) {
      if (other.name == name) gang.slurm_id = other.id;
    }
    if (auto text = read_file(id_file({job_folder(job), gang.spec.attempt}), 32); text && gang.slurm_id == 0)
      std::from_chars(text->data(), text->data() + text->size(), gang.slurm_id);
    if (gang.slurm_id != 0 || gang.stopping) return;
    spec = gang.spec;
  }
  Result<int64_t> id = fail(Code::kInternal, "");
  if (Status written = write_files(spec); !written) {
    id = fail(written.error());
  } else {
    const Json body = submit_body(spec, options_.queue_of ? options_.queue_of(spec) : SlurmQueue{},
                                  job_folder(job), options_.path);
    auto answer = call("POST", "/job/submit", &body);
    if (!answer)
      return log_warn("Slurm: job {}: {}", job, answer.error().message);  // the next round looks for it
    id = parse_submitted(*answer);
  }
  const std::lock_guard lock(mutex_);
  Gang& gang = gangs_.at(job);
  if (!id) return fail_gang(gang, id.error().message, false);
  gang.slurm_id = *id;
  if (Status kept = write_file_durable(id_file({job_folder(job), spec.attempt}), std::to_string(*id)); !kept)
    log_warn("job {}: {}", job, kept.error().message);
}

Status SlurmLauncher::write_files(const GangSpec& spec) {
  const fs::path folder = job_folder(spec.job);
  const AttemptFiles files(folder, spec.attempt);
  TH_RETURN_IF_ERROR(make_folder(files.folder));
  std::string hosts;
  for (const RankPlace& place : spec.ranks) hosts += place.node + "\n";
  TH_RETURN_IF_ERROR(write_file_durable(files.hosts, hosts));
  TH_RETURN_IF_ERROR(write_file_durable(files.wrapper, wrapper_script(spec, files, folder)));
  std::error_code none;
  const auto metrics_bytes = spec.metrics_file.empty() ? 0 : fs::file_size(folder / spec.metrics_file, none);
  TH_RETURN_IF_ERROR(write_file_durable(files.metrics_from(), std::to_string(none ? 0 : metrics_bytes)));
  for (const auto& [path, text] : spec.files) {
    TH_RETURN_IF_ERROR(make_folder((folder / path).parent_path()));
    TH_RETURN_IF_ERROR(write_file_durable(folder / path, text));
  }
  for (const auto& [path, from] : spec.stage) {
    TH_RETURN_IF_ERROR(make_folder((folder / path).parent_path()));
    std::error_code error;
    fs::copy(from, folder / path, fs::copy_options::recursive | fs::copy_options::update_existing, error);
    if (error) return fail(errno_error("stage " + from, error.value()));
  }
  return {};
}

/// Signals and the end.
void SlurmLauncher::send_wishes(const std::string& job) {
  std::vector<int> signals;
  int64_t id = 0;
  bool stopping = false;
  {
    const std::lock_guard lock(mutex_);
    Gang& gang = gangs_.at(job);
    id = gang.slurm_id;
    if (id == 0) return;
    stopping = gang.stopping && !gang.stop_sent;
    if (gang.state != GangState::kStarting) signals = std::exchange(gang.signals, {});
  }
  for (int number : signals) {
    if (auto sent = call("DELETE", fmt::format("/job/{}?signal={}", id, number)); !sent)
      log_warn("Slurm: job {}: signal {}: {}", job, number, sent.error().message);
  }
  if (!stopping) return;
  auto sent = call("DELETE", fmt::format("/job/{}", id));
  const std::lock_guard lock(mutex_);
  if (sent) gangs_.at(job).stop_sent = true;  // else the next round tries again
}

/// What Slurm says about the gang's job; null: it is not in its list.
void SlurmLauncher::take_job(const std::string& job, const SlurmJob* found) {
  Gang& gang = gangs_.at(job);
  const bool is_over = gang.state == GangState::kSucceeded || gang.state == GangState::kFailed;
  SlurmJob now = found != nullptr ? *found : SlurmJob{gang.slurm_id, "", "FAILED", "Slurm has forgotten it"};
  if (gang.slurm_id == 0) {
    if (!gang.stopping) return;
    now.state = "CANCELLED";
  } else if (found == nullptr && now_ns() - gang.started_ns < 2 * options_.poll_ns) {
    return;  // submitted in this round
  }
  if (now.restarts > 0 && !is_over) {
    fail_gang(gang, fmt::format("Slurm requeued its job {}: a node failed or it was preempted", now.id),
              true);
  } else if (now.has_ended()) {
    read_metrics(gang);
    end_ranks(gang, now);
  } else if (!now.is_pending() && !is_over) {
    read_metrics(gang);
    for (size_t rank = 0; rank < gang.ranks.size(); ++rank) {
      node::TaskReport report = gang.ranks[rank];
      if (report.state != node::TaskState::kStarting) continue;
      report.state = node::TaskState::kRunning;
      report.started_ns = now.start_ns;
      change(gang, static_cast<int>(rank), std::move(report), false);
    }
    if (gang.state == GangState::kStarting && !gang.stopping) tell(gang, GangState::kRunning);
  }
  if (!gang.stopping || !now.has_ended()) return;
  tell(gang, GangState::kGone);
  gangs_.erase(job);
}

/// Lines of rank 0 that were not told yet.
void SlurmLauncher::read_metrics(Gang& gang) {
  if (gang.spec.metrics_file.empty()) return;
  if (gang.metrics_offset < 0) {
    const AttemptFiles files(job_folder(gang.spec.job), gang.spec.attempt);
    const std::string from = read_file(files.metrics_from(), 32).value_or("0");
    std::from_chars(from.data(), from.data() + from.size(), gang.metrics_offset = 0);
  }
  std::ifstream file(job_folder(gang.spec.job) / gang.spec.metrics_file);
  file.seekg(gang.metrics_offset);
  std::string line;
  while (std::getline(file, line) && !file.eof()) {  // what has no end yet is not whole
    gang.metrics_offset = file.tellg();
    ++gang.metrics_line;
    if (gang.metrics_line <= gang.metrics_stored || line.size() > node::kMaxMetricsLineBytes) continue;
    if (auto json = parse_json(line, "metrics"); json && json->is_object())
      events_.push_back(MetricsArrived{{gang.ranks[0].id, gang.metrics_line, line}});
  }
}

/// Whether ranks without an exit file went with their node. Slurm may find the step broken, and the job
/// failed, before it finds the node down: then srun ends with what is no signal's status, and no rank with an
/// error of its own.
bool SlurmLauncher::lost_a_node(const Gang& gang, const SlurmJob& job) const {
  const int64_t status = job.wait_status >> 8 & 0xff;
  if (job.state != "FAILED" || (status > kSignalBase && status <= kSignalBase + SIGRTMAX))
    return job.state == "NODE_FAIL";
  const AttemptFiles files(job_folder(gang.spec.job), gang.spec.attempt);
  for (size_t rank = 0; rank < gang.ranks.size(); ++rank) {
    const auto text = read_file(files.exit(static_cast<int>(rank)), 64);
    const auto exit = text ? parse_exit(*text) : fail(text.error());
    const bool ended_with_it = exit && (exit->code == 0 || exit->code == kSignalBase + SIGTERM ||
                                        exit->code == kSignalBase + SIGKILL);
    if (exit && !ended_with_it) return false;
  }
  return true;
}

/// The exit files say how each rank ended; a rank without one went with its node, or with the job.
void SlurmLauncher::end_ranks(Gang& gang, const SlurmJob& job) {
  const bool is_over = gang.state == GangState::kSucceeded || gang.state == GangState::kFailed;
  const AttemptFiles files(job_folder(gang.spec.job), gang.spec.attempt);
  std::optional<RankChanged> cause;
  bool all_good = true;
  const bool node_lost = lost_a_node(gang, job);
  for (size_t rank = 0; rank < gang.ranks.size(); ++rank) {
    node::TaskReport report = gang.ranks[rank];
    if (report.state == node::TaskState::kExited) continue;
    report.state = node::TaskState::kExited;
    report.started_ns = job.start_ns;
    report.ended_ns = job.end_ns;
    bool lost = false;
    auto text = read_file(files.exit(static_cast<int>(rank)), 64);
    if (auto exit = text ? parse_exit(*text) : fail(text.error())) {
      report.ended_ns = exit->at_ns;
      if (exit->code > kSignalBase) report.signal = exit->code - kSignalBase;
      if (exit->code <= kSignalBase) report.exit_code = exit->code;
    } else {
      lost = node_lost;
      report.reason = fmt::format("Slurm's job {} ended: {} ({})", job.id, job.state, job.reason);
    }
    const bool good = report.exit_code == 0 && !gang.spec.service;
    all_good = all_good && good;
    change(gang, static_cast<int>(rank), report, lost);
    // Those without an exit file were ended with the job, whose times are whole seconds, or are the cause of
    // it.
    const auto order = [](const node::TaskReport& r, bool gone) {
      return std::tuple(!gone, !r.reason.empty(), r.ended_ns);
    };
    if (!good && (!cause || order(report, lost) < order(cause->report, cause->lost)))
      cause = RankChanged{gang.spec.ranks[rank].vm, report, lost};
  }
  if (is_over || gang.stopping) return;
  if (all_good) tell(gang, GangState::kSucceeded);
  if (!all_good) tell(gang, GangState::kFailed, cause);
}

void SlurmLauncher::fail_gang(Gang& gang, const std::string& reason, bool lost) {
  if (gang.state == GangState::kFailed) return;
  for (size_t rank = 0; rank < gang.ranks.size(); ++rank) {
    node::TaskReport report = gang.ranks[rank];
    report.state = node::TaskState::kExited;
    report.reason = reason;
    change(gang, static_cast<int>(rank), std::move(report), lost);
  }
  tell(gang, GangState::kFailed, RankChanged{gang.spec.ranks[0].vm, gang.ranks[0], lost});
}

void SlurmLauncher::change(Gang& gang, int rank, node::TaskReport report, bool lost) {
  gang.ranks[rank] = std::move(report);
  events_.push_back(RankChanged{gang.spec.ranks[rank].vm, gang.ranks[rank], lost});
}

void SlurmLauncher::tell(Gang& gang, GangState state, std::optional<RankChanged> cause) {
  gang.state = state;
  events_.push_back(GangChanged{gang.spec.job, gang.spec.attempt, state, std::move(cause)});
}

}  // namespace th::launch
