#include "node/rank.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/process.h"
#include "base/units.h"
#include "node/job_folder.h"
#include "node/spawn.h"

namespace th::node {
namespace {

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("SIG{}", name);
}

/// Beside th-node first, so that `bash -c "th-train …"` finds what argv[0] would.
std::string program_path() {
  const char* path = std::getenv("PATH");
  return program_folder().string() + ":" + (path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path);
}

}  // namespace

void Rank::start() {
  int64_t now = Env::real().monotonic_ns();
  if (Status started = try_start(); !started) return exit_with(started.error().message, now);
  log_info("{} runs as process {}", task_.id.text(), report_.pid);
}

Result<Rank::Inside> Rank::open_inside_of(SpawnSpec& spec) const {
  const NodeConfig& config = host_.config;
  Inside out;
  TH_TRY(out.folder, open_job_folder(config.jobs_dir, task_.id.job));
  if (task_.cwd) {
    out.cwd = UniqueFd(open(task_.cwd->c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!out.cwd) return fail(errno_error(fmt::format("working folder {}", *task_.cwd), errno));
  }
  out.reachable = !user_ || can_reach(*user_, config.jobs_dir / task_.id.job);
  spec.env = environment(out.reachable);
  spec.cwd_fd = out.cwd ? out.cwd.get() : out.folder.get();
  spec.job_fd = out.reachable ? -1 : out.folder.get();
  spec.cgroup_procs_fd = cgroup_.procs_fd();
  spec.data_limit_bytes = cgroup_.procs_fd() < 0 ? task_.memory_bytes : 0;
  spec.user = user_;
  spec.hide_processes = user_ && host_.isolation.processes;
  if (user_ && host_.isolation.network && wants_private_network(task_)) {
    TH_TRY(spec.network_fd, host_.networks.enter(tenant_of(task_)));
  }
  return out;
}

Status Rank::try_start() {
  TH_TRY(cgroup_, host_.limiter.limit(task_.id.text(), task_.memory_bytes));
  SpawnSpec spec;
  TH_TRY(const Inside inside, open_inside_of(spec));
  TH_TRY(log_, LogFile::make(host_.config.dir / "logs" / (task_.id.text() + ".log")));
  if (task_.metrics_file) {
    UniqueFd read_only(open(fmt::format("/proc/self/fd/{}", inside.folder.get()).c_str(),
                            O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    TH_TRY(UniqueFd file, open_inside(read_only.get(), *task_.metrics_file, user_));
    metrics_fd_ = file.get();
    metrics_ = MetricsTail(std::move(file), task_.id);
  }
  spec.argv = task_.argv;
  spec.log_fd = log_.fd();
  TH_TRY(report_.pid, spawn(spec));
  report_.state = TaskState::kRunning;
  report_.started_ns = Env::real().unix_ns();
  return {};
}

Result<pid_t> Rank::spawn_beside(SpawnSpec spec, const std::map<std::string, std::string>& env) const {
  TH_TRY(const Inside inside, open_inside_of(spec));
  for (const auto& [name, value] : env) spec.env[name] = value;
  return spawn(spec);
}

std::map<std::string, std::string> Rank::environment(bool reachable) const {
  const NodeConfig& config = host_.config;
  std::string folder =
      reachable ? (config.jobs_dir / task_.id.job).string() : fmt::format("/proc/self/fd/{}", kJobFd);
  std::map<std::string, std::string> env = task_.env;
  env["TH_JOB_DIR"] = folder;
  if (task_.metrics_file) env["TH_METRICS"] = folder + "/" + *task_.metrics_file;
  const std::string slice = slice_of(task_);
  if (reachable && !slice.empty()) env["TH_SLICE_DIR"] = (config.jobs_dir / slice).string();
  env["TH_VM_DIR"] = config.dir;  // by these two, what a rank left behind is found again
  env["TH_TASK"] = (config.dir / task_.id.text()).string();
  env.insert(
      {{"TH_URL", config.controller}, {"PATH", program_path()}, {"HOME", folder}, {"LANG", "C.UTF-8"}});
  if (user_) env.insert({{"USER", user_->name}, {"LOGNAME", user_->name}});
  return env;
}

void Rank::fail_to_start(std::string reason) { exit_with(std::move(reason), Env::real().monotonic_ns()); }

void Rank::set_ready() {
  if (report_.state == TaskState::kRunning) report_.state = TaskState::kReady;
}

void Rank::exit_with(std::string reason, int64_t now_ns) {
  report_.state = TaskState::kExited;
  report_.reason = std::move(reason);
  report_.ended_ns = Env::real().unix_ns();
  exited_at_ns_ = now_ns;
  log_info("{} ended: {}", task_.id.text(), report_.reason);
}

void Rank::stop(int64_t now_ns) {
  if (stopping_ || exited()) return;
  stopping_ = true;
  if (!running()) return exit_with("stopped before it started", now_ns);
  kill_at_ns_ = now_ns + task_.grace_ms * kMillisecond;
  kill(-pid(), SIGTERM);
}

void Rank::signal_once(const Task& task) {
  if (task.signal == 0 || task.signal == signalled_ || !running() || stopping_) return;
  signalled_ = task.signal;
  log_info("{} gets {}", task_.id.text(), signal_name(task.signal));
  kill(task.signal_leader_only ? pid() : -pid(), task.signal);
}

std::optional<int64_t> Rank::kill_at_ns() const {
  return stopping_ && !killed_ && running() ? std::optional(kill_at_ns_) : std::nullopt;
}

void Rank::kill_overdue(int64_t now_ns) {
  auto at = kill_at_ns();
  if (!at || now_ns < *at) return;
  killed_ = true;
  kill(-pid(), SIGKILL);
}

void Rank::reap(int64_t now_ns) {
  // Before the reaping: until then nobody else can get this number, so the group is surely still ours.
  kill(-pid(), SIGKILL);
  int status = 0;
  if (waitpid(pid(), &status, 0) != pid()) return;
  kill_leftovers(0, "TH_TASK=" + (host_.config.dir / task_.id.text()).string());
  if (WIFEXITED(status)) {
    report_.exit_code = WEXITSTATUS(status);
    return exit_with(fmt::format("exited with code {}", *report_.exit_code), now_ns);
  }
  report_.signal = WTERMSIG(status);
  std::string reason = "killed by " + signal_name(*report_.signal);
  if (cgroup_.oom_killed()) {
    reason += fmt::format(": out of memory, its limit is {}", format_bytes(task_.memory_bytes));
  }
  exit_with(std::move(reason), now_ns);
}

void Rank::ack_metrics(int64_t line_no, int64_t now_ns) {
  const bool news = !metrics_.waiting().empty() && metrics_.waiting().front().line_no <= line_no;
  if (news) acked_at_ns_ = now_ns;
  metrics_.ack(line_no);
  metrics_.read_more();
}

bool Rank::metrics_drained(int64_t now_ns) const {
  if (metrics_.at_end() && metrics_.waiting().empty()) return true;
  const auto late_ns = drained_at_ns();
  return late_ns && now_ns >= *late_ns;
}

bool Rank::drained(int64_t now_ns) const {
  const auto late_ns = drained_at_ns();
  return metrics_drained(now_ns) && (log_.all_sent() || (late_ns && now_ns >= *late_ns));
}

std::optional<int64_t> Rank::drained_at_ns() const {
  if (!exited() || !in_touch_since_ns_) return std::nullopt;
  return std::max({exited_at_ns_, acked_at_ns_, *in_touch_since_ns_}) + kDrainNs;
}

TaskReport Rank::report(int64_t now_ns) const {
  TaskReport shown = report_;
  if (!exited() || drained(now_ns)) return shown;
  shown.state = report_.started_ns == 0 ? TaskState::kStarting : TaskState::kRunning;
  shown.exit_code.reset();
  shown.signal.reset();
  shown.reason.clear();
  shown.ended_ns = 0;
  return shown;
}

}  // namespace th::node
