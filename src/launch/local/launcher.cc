#include "launch/local/launcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "launch/rendezvous.h"

namespace th::launch {
namespace {

bool runs(const node::TaskReport& report) {
  return report.state == node::TaskState::kRunning || report.state == node::TaskState::kReady;
}

bool succeeded(const node::TaskReport& report) {
  return report.state == node::TaskState::kExited && report.exit_code == 0;
}

Status check_gang(const GangSpec& gang) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument, fmt::format("job {}: {}", gang.job, problem));
  };
  TH_RETURN_IF_ERROR(check_name(gang.job, "job"));
  if (gang.attempt < 1) return bad("attempts count from 1");
  if (gang.argv.empty() || gang.argv[0].empty()) return bad("has no command");
  if (gang.ranks.empty()) return bad("has no ranks");
  for (const RankPlace& place : gang.ranks) TH_RETURN_IF_ERROR(check_name(place.vm, "VM of a rank"));
  return {};
}

}  // namespace

LocalLauncher::LocalLauncher(int64_t first_generation)
    : first_generation_(first_generation), last_generation_(first_generation) {
  TH_CHECK(first_generation > 0);
}

Status LocalLauncher::start(GangSpec spec) {
  TH_RETURN_IF_ERROR(check_gang(spec));
  if (auto it = gangs_.find(spec.job); it != gangs_.end()) {
    if (it->second.spec.attempt == spec.attempt) return {};
    return fail(Code::kFailedPrecondition,
                fmt::format("job {}: attempt {} is not gone yet; stop it and wait before attempt {} starts",
                            spec.job, it->second.spec.attempt, spec.attempt));
  }
  std::string job = spec.job;
  Gang& gang = gangs_[job];
  for (node::Task& task : gang_tasks(spec)) {
    Rank rank;
    rank.report.id = task.id;
    rank.vm = spec.ranks[task.id.rank].vm;
    if (auto restored = restored_.extract(task.id.text())) {
      rank.metrics_seen = rank.metrics_stored = restored.mapped();
    }
    rank.task = std::move(task);
    gang.ranks.push_back(std::move(rank));
  }
  gang.spec = std::move(spec);
  for (size_t rank = 0; rank < gang.ranks.size(); ++rank) gang.by_vm[gang.ranks[rank].vm].push_back(rank);
  for (const auto& [vm, ranks] : gang.by_vm) {
    bump(vm);
    vms_[vm].gangs.insert(job);
  }
  return {};
}

void LocalLauncher::stop(std::string_view job) {
  auto it = gangs_.find(job);
  if (it == gangs_.end() || it->second.stopping) return;
  Gang& gang = it->second;
  gang.stopping = true;
  for (const auto& [vm, ranks] : gang.by_vm) {
    const int64_t generation = bump(vm);
    for (const size_t rank : ranks) gang.ranks[rank].stop_generation = generation;
  }
  drop_gone_gangs();  // every VM of it may be lost already
}

void LocalLauncher::signal(std::string_view job, int number, bool leader_only) {
  auto it = gangs_.find(job);
  if (it == gangs_.end() || it->second.stopping) return;
  std::set<std::string> vms;
  for (Rank& rank : it->second.ranks) {
    if (rank.task.signal == number) continue;
    rank.task.signal = number, rank.task.signal_leader_only = leader_only;
    vms.insert(rank.vm);
  }
  for (const std::string& vm : vms) bump(vm);
}

int64_t LocalLauncher::bump(const std::string& vm) { return vms_[vm].generation = ++last_generation_; }

LocalLauncher::Rank* LocalLauncher::find_rank(const node::TaskId& id) {
  auto it = gangs_.find(id.job);
  if (it == gangs_.end() || it->second.spec.attempt != id.attempt) return nullptr;
  if (static_cast<size_t>(id.rank) >= it->second.ranks.size()) return nullptr;
  return &it->second.ranks[id.rank];
}

void LocalLauncher::ack_metrics(const node::TaskId& task, int64_t line_no) {
  if (Rank* rank = find_rank(task)) rank->metrics_stored = std::max(rank->metrics_stored, line_no);
}

void LocalLauncher::refuse_metrics(const node::TaskId& task) {
  if (Rank* rank = find_rank(task)) rank->metrics_seen = rank->metrics_stored;
}

void LocalLauncher::restore_metrics(const node::TaskId& task, int64_t line_no) {
  if (Rank* rank = find_rank(task)) {
    rank->metrics_stored = std::max(rank->metrics_stored, line_no);
    rank->metrics_seen = std::max(rank->metrics_seen, line_no);
  } else {
    restored_[task.text()] = line_no;
  }
}

std::vector<Event> LocalLauncher::take_events() { return std::exchange(events_, {}); }

int64_t LocalLauncher::generation(std::string_view vm) const {
  auto it = vms_.find(vm);
  return it == vms_.end() || it->second.generation == 0 ? first_generation_ : it->second.generation;
}

node::SyncReply LocalLauncher::desired(std::string_view vm) const {
  node::SyncReply reply;
  reply.generation = generation(vm);
  const auto known = vms_.find(vm);
  if (known == vms_.end()) return reply;
  for (const std::string& job : known->second.gangs) {
    const Gang& gang = gangs_.find(job)->second;
    for (const size_t index : gang.by_vm.find(vm)->second) {
      const Rank& rank = gang.ranks[index];
      if (rank.gone) continue;
      if (rank.metrics_stored > 0) reply.ack_metrics[rank.task.id.text()] = rank.metrics_stored;
      if (!gang.stopping) reply.tasks.push_back(rank.task);
    }
  }
  return reply;
}

void LocalLauncher::on_report(std::string_view vm, const node::SyncRequest& request) {
  Vm& known = vms_[std::string(vm)];
  if (!known.boot_id.empty() && known.boot_id != request.boot_id) {
    lose_ranks(vm, fmt::format("the node of {} started anew", vm), true);
  }
  known.boot_id = request.boot_id;
  // Metrics first: the line that a rank wrote last is known before its exit is.
  for (const node::MetricsLine& line : request.metrics) take_metrics(vm, line);
  std::set<std::string> reported;
  for (const node::TaskReport& report : request.tasks) {
    reported.insert(report.id.text());
    take_report(vm, report);
  }
  for (const std::string& job : known.gangs) {
    Gang& gang = gangs_.find(job)->second;
    if (!gang.stopping) continue;
    for (const size_t index : gang.by_vm.find(vm)->second) {
      Rank& rank = gang.ranks[index];
      const bool heard = request.have_generation >= rank.stop_generation;
      if (heard && !reported.contains(rank.task.id.text())) lose(gang, rank);
    }
  }
  drop_gone_gangs();
}

void LocalLauncher::on_vm_lost(std::string_view vm, std::string_view reason) {
  lose_ranks(vm, reason, false);
  if (auto it = vms_.find(vm); it != vms_.end()) vms_.erase(it);
  drop_gone_gangs();
}

bool LocalLauncher::heard(std::string_view vm) const {
  auto it = vms_.find(vm);
  return it != vms_.end() && !it->second.boot_id.empty();
}

void LocalLauncher::take_metrics(std::string_view vm, const node::MetricsLine& line) {
  Rank* rank = find_rank(line.id);
  if (rank == nullptr || rank->vm != vm || line.line_no <= rank->metrics_seen) return;
  rank->metrics_seen = line.line_no;
  events_.push_back(MetricsArrived{line});
}

void LocalLauncher::take_report(std::string_view vm, const node::TaskReport& report) {
  Rank* rank = find_rank(report.id);
  if (rank == nullptr || rank->vm != vm || rank->gone) return;
  rank->seen = true;
  // An exit is final: a rank that was told as lost stays lost.
  if (rank->report == report || rank->report.state == node::TaskState::kExited) return;
  change(gangs_.find(report.id.job)->second, *rank, report, false);
}

void LocalLauncher::change(Gang& gang, Rank& rank, node::TaskReport report, bool lost) {
  const auto up = [](const node::TaskReport& r) { return runs(r) || succeeded(r); };
  gang.num_up += size_t{up(report)} - size_t{up(rank.report)};
  gang.num_succeeded += size_t{succeeded(report)} - size_t{succeeded(rank.report)};
  rank.report = std::move(report);
  RankChanged changed{rank.vm, rank.report, lost};
  events_.push_back(changed);
  settle(gang, changed);
}

void LocalLauncher::settle(Gang& gang, const RankChanged& changed) {
  if (gang.stopping || gang.state == GangState::kFailed || gang.state == GangState::kSucceeded) return;
  auto tell = [&](GangState state, std::optional<RankChanged> cause = std::nullopt) {
    gang.state = state;
    events_.push_back(GangChanged{gang.spec.job, gang.spec.attempt, state, std::move(cause)});
  };
  bool ended = changed.report.state == node::TaskState::kExited;
  if (ended && (gang.spec.service || !succeeded(changed.report))) return tell(GangState::kFailed, changed);
  if (gang.state == GangState::kStarting && gang.num_up == gang.ranks.size()) tell(GangState::kRunning);
  if (gang.state == GangState::kRunning && gang.ranks[0].report.state == node::TaskState::kReady) {
    tell(GangState::kReady);
  }
  if (gang.num_succeeded == gang.ranks.size()) tell(GangState::kSucceeded);
}

void LocalLauncher::lose(Gang& gang, Rank& rank) {
  if (!std::exchange(rank.gone, true)) ++gang.num_gone;
}

void LocalLauncher::lose_ranks(std::string_view vm, std::string_view reason, bool only_seen) {
  const auto known = vms_.find(vm);
  if (known == vms_.end()) return;
  for (const std::string& job : known->second.gangs) {
    Gang& gang = gangs_.find(job)->second;
    for (const size_t index : gang.by_vm.find(vm)->second) {
      Rank& rank = gang.ranks[index];
      if (rank.gone || (only_seen && !rank.seen)) continue;
      lose(gang, rank);
      if (rank.report.state == node::TaskState::kExited) continue;
      node::TaskReport report = rank.report;
      report.state = node::TaskState::kExited;
      report.reason = reason;
      change(gang, rank, std::move(report), true);
    }
  }
}

void LocalLauncher::drop_gone_gangs() {
  std::erase_if(gangs_, [&](const auto& entry) {
    const Gang& gang = entry.second;
    if (!gang.stopping || gang.num_gone < gang.ranks.size()) return false;
    for (const auto& [vm, ranks] : gang.by_vm) {
      if (const auto known = vms_.find(vm); known != vms_.end()) known->second.gangs.erase(entry.first);
    }
    events_.push_back(GangChanged{gang.spec.job, gang.spec.attempt, GangState::kGone, std::nullopt});
    return true;
  });
}

}  // namespace th::launch
