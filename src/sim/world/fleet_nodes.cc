#include "sim/world/fleet_nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "base/units.h"

namespace th::sim {
namespace {

using node::TaskState;

constexpr const char* kTraining = "simulated-training";
constexpr int64_t kLineNs = 2 * kMinute;  // between two lines of progress
constexpr const char* kCheckJobs =
    "check-";  // of the controller: a stack's check of a node, which all pass at once
constexpr int64_t kDefaultRunNs = 30 * kMinute;     // of a command that does not say how long it takes
constexpr double kTokensPerGpuS = 900, kStepS = 6;  // of Llama 3 405B on H100: 16e6 tokens in 5.9 s on 16,384

int64_t number(const std::map<std::string, std::string>& env, const char* name, int64_t fallback) {
  const auto found = env.find(name);
  return found == env.end() ? fallback : std::strtoll(found->second.c_str(), nullptr, 10);
}

bool is_up(ledger::VmState state) {
  return state == ledger::VmState::kUp || state == ledger::VmState::kReady || state == ledger::VmState::kKept;
}

/// The form of a scaling law in the number of steps; the numbers are made up.
double loss_at(int64_t step, double noise) {
  return 1.75 + 9.0 * std::pow(static_cast<double>(step) + 8.0, -0.35) + 0.01 * noise;
}

}  // namespace

std::vector<std::string> simulated_training(int64_t milliseconds, bool well) {
  return {kTraining, std::to_string(milliseconds), well ? "well" : "badly"};
}

FleetNodes::FleetNodes(Clock& clock, uint64_t seed, SimCloud& cloud)
    : clock_(clock), prng_(seed), cloud_(cloud) {
  cloud_.on_made = [this](const Machine& machine) {
    nodes_.erase(machine.spec.vm);
    if (!machine.boots) return;
    clock_.after(between(20 * kSecond, 90 * kSecond),
                 [this, vm = machine.spec.vm, serial = machine.serial] { boot(vm, serial); });
  };
  cloud_.on_ended = [this](const std::string& vm) { nodes_.erase(vm); };
}

void FleetNodes::start(control::Controller& controller) {
  controller_ = &controller;
  beat();
}

void FleetNodes::boot(const std::string& vm, int64_t serial) {
  const auto machine = cloud_.machines().find(vm);
  const bool there = machine != cloud_.machines().end() && machine->second.serial == serial &&
                     machine->second.phase == cloud::VmPhase::kRunning;
  if (there) nodes_[vm] = Node{clock_.token(), serial, 0, true, {}};
}

void FleetNodes::beat() {
  for (auto& [vm, node] : nodes_) {
    const auto known = controller_->core.state().vms.find(vm);
    if (known == controller_->core.state().vms.end() || !is_up(known->second.state)) continue;
    controller_->nodes.heard(vm);
    bool tells = std::exchange(node.is_new, known->second.state == ledger::VmState::kUp);
    if (controller_->core.node_launcher().generation(vm) != node.generation) tells = obey(vm, node) || tells;
    for (auto& [id, rank] : node.ranks) tells = move(rank) || tells;
    if (tells) report(vm, node);
  }
  clock_.after(kBeatNs, [this] { beat(); });
}

bool FleetNodes::obey(const std::string& vm, Node& node) {
  const node::SyncReply wanted = controller_->core.node_launcher().desired(vm);
  node.generation = wanted.generation;
  std::map<std::string, const node::Task*> tasks;
  for (const node::Task& task : wanted.tasks) tasks[task.id.text()] = &task;
  std::erase_if(node.ranks, [&](const auto& rank) { return !tasks.count(rank.first); });
  for (const auto& [id, task] : tasks) {
    auto [at, is_new] = node.ranks.try_emplace(id);
    if (!is_new) continue;
    Rank& rank = at->second;
    rank.report.id = task->id;
    rank.up_ns = clock_.unix_ns() + between(kSecond, 8 * kSecond);
    const bool said = task->argv.size() > 1 && task->argv[0] == kTraining;
    int64_t run_ns = said ? std::strtoll(task->argv[1].c_str(), nullptr, 10) * kMillisecond : kDefaultRunNs;
    if (task->id.job.starts_with(kCheckJobs)) run_ns = 0;
    rank.ends_ns = task->ready_url ? 0 : clock_.unix_ns() + run_ns;
    rank.well = !said || task->argv.size() < 3 || task->argv[2] == "well";
    rank.tells = task->metrics_file.has_value() && !task->ready_url;
    rank.gpus = static_cast<int64_t>(task->gpus.size());
    rank.ranks = number(task->env, "WORLD_SIZE", 1);
    rank.next_line_ns = rank.up_ns + kLineNs;
  }
  return true;
}

bool FleetNodes::move(Rank& rank) const {
  const int64_t now_ns = clock_.unix_ns();
  node::TaskReport& report = rank.report;
  if (report.state == TaskState::kStarting && now_ns >= rank.up_ns) {
    report.state = rank.ends_ns == 0 ? TaskState::kReady : TaskState::kRunning;
    report.started_ns = now_ns, report.pid = 1000;
    return true;
  }
  if (report.state != TaskState::kRunning) return false;
  if (now_ns >= rank.ends_ns) {
    report.state = TaskState::kExited, report.exit_code = rank.well ? 0 : 1;
    report.reason = rank.well ? "exited" : "exited with 1 (simulated)";
    report.ended_ns = now_ns;
    return true;
  }
  return rank.tells && now_ns >= rank.next_line_ns;
}

void FleetNodes::tell_progress(const std::string& vm, Rank& rank, node::SyncRequest& request) {
  const int64_t now_ns = clock_.unix_ns();
  if (!rank.tells || rank.report.state != TaskState::kRunning || now_ns < rank.next_line_ns) return;
  const double seconds = static_cast<double>(now_ns - rank.up_ns) / 1e9;
  const auto step = static_cast<int64_t>(seconds / kStepS);
  rank.next_line_ns = now_ns + kLineNs;
  const double loss = loss_at(step, prng_.normal());
  const double tokens_per_s =
      kTokensPerGpuS * static_cast<double>(rank.gpus * rank.ranks) * (0.98 + 0.04 * prng_.uniform());
  request.metrics.push_back(
      {rank.report.id, ++rank.lines,
       fmt::format(R"({{"event":"progress","step":{},"loss":{:.4f},"tokens_per_s":{:.0f},"simulated":true}})",
                   step, loss, tokens_per_s)});
  const std::string text =
      fmt::format("[simulated] step {}  loss {:.4f}  {:.0f} tokens/s\n", step, loss, tokens_per_s);
  if (const auto next = controller_->nodes.log(vm, rank.report.id, rank.log_bytes, text))
    rank.log_bytes = *next;
}

void FleetNodes::report(const std::string& vm, Node& node) {
  node::SyncRequest request;
  request.boot_id = node.boot_id, request.have_generation = node.generation;
  request.address = "127.0.0.1";
  if (node.is_new) request.validation = node::Validation{true, {{"gpus", true, "simulated", "simulated"}}};
  for (auto& [id, rank] : node.ranks) {
    tell_progress(vm, rank, request);
    request.tasks.push_back(rank.report);
  }
  controller_->nodes.take(vm, request);
}

std::string FleetNodes::fail_some_rank(const std::string& reason) {
  if (nodes_.empty()) return {};
  auto at = nodes_.begin();
  std::advance(at, static_cast<int64_t>(prng_.below(nodes_.size())));
  for (auto& [id, rank] : at->second.ranks) {
    if (rank.report.state != TaskState::kRunning) continue;
    rank.report.state = TaskState::kExited, rank.report.signal = 9;
    rank.report.reason = "killed by SIGKILL: " + reason;
    rank.report.ended_ns = clock_.unix_ns();
    report(at->first, at->second);
    return rank.report.id.job;
  }
  return {};
}

}  // namespace th::sim
