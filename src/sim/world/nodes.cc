#include "sim/world/nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/units.h"

namespace th::sim {
namespace {

using node::TaskState;

constexpr int64_t kPollNs = 8 * kSecond;
constexpr int64_t kSyncGiveUpNs = 12 * kSecond;  // of a sync without an answer
constexpr int64_t kRetryNs = 2 * kSecond;

bool ended(const node::TaskReport& report) { return report.state == TaskState::kExited; }

}  // namespace

std::vector<std::string> rank_command(int64_t milliseconds, bool well) {
  return {"run", std::to_string(milliseconds), well ? "well" : "badly"};
}

SimNodes::SimNodes(Clock& clock, uint64_t seed, SimCloud& cloud, ControlLink& link)
    : clock_(clock), prng_(seed), cloud_(cloud), link_(link) {
  cloud_.on_made = [this](const Machine& machine) {
    nodes_.erase(machine.spec.vm);
    if (!machine.boots) return;
    clock_.after(between(2 * kSecond, 15 * kSecond),
                 [this, vm = machine.spec.vm, serial = machine.serial] { boot(vm, serial); });
  };
  cloud_.on_ended = [this](const std::string& vm) { nodes_.erase(vm); };
}

SimNodes::Node* SimNodes::find(const std::string& vm) {
  const auto found = nodes_.find(vm);
  return found == nodes_.end() ? nullptr : &found->second;
}

void SimNodes::boot(const std::string& vm, int64_t serial) {
  const auto machine = cloud_.machines().find(vm);
  const bool there = machine != cloud_.machines().end() && machine->second.serial == serial &&
                     machine->second.phase == cloud::VmPhase::kRunning;
  if (!there) return;
  Node& node = nodes_[vm];
  node = Node{vm, machine->second.node_token, clock_.token(), serial, 0, 0, 0, true, false, {}};
  node.valid = !chance(fails_validation);
  say(node);
}

void SimNodes::reboot(const std::string& vm) {
  Node* node = find(vm);
  if (!node) return;
  const int64_t serial = node->serial;
  nodes_.erase(vm);
  clock_.after(between(kSecond, 20 * kSecond), [this, vm, serial] { boot(vm, serial); });
}

void SimNodes::cut_off(const std::string& vm, int64_t duration_ns) {
  if (Node* node = find(vm)) node->cut_off_until_ns = clock_.unix_ns() + duration_ns;
}

void SimNodes::kill_rank(const std::string& vm) {
  Node* node = find(vm);
  if (!node) return;
  for (auto& [id, rank] : node->ranks) {
    if (!rank.alive || rank.stopping) continue;
    rank.alive = false;
    rank.report.state = TaskState::kExited, rank.report.signal = 9;
    rank.report.reason = "killed by SIGKILL: an uncorrectable memory error of its GPU";
    return say(*node);
  }
}

std::vector<std::string> SimNodes::running() const {
  std::vector<std::string> out;
  for (const auto& [vm, node] : nodes_) out.push_back(vm);
  return out;
}

std::set<int> SimNodes::started(const std::string& job, int attempt) const {
  const auto found = started_.find({job, attempt});
  return found == started_.end() ? std::set<int>() : found->second;
}

void SimNodes::say(Node& node) {
  if (node.dismissed) return;
  const int64_t talk = ++node.talk;
  node::SyncRequest request;
  request.boot_id = node.boot_id, request.have_generation = node.have_generation;
  request.validation = node::Validation{node.valid, {{"gpus", node.valid, "found", "want"}}};
  request.address = "127.0.0.1";
  for (const auto& [id, rank] : node.ranks) request.tasks.push_back(rank.report);
  const int64_t now_ns = clock_.unix_ns();
  const int64_t sent_ns = std::max(now_ns + between(kMillisecond, 30 * kMillisecond), node.cut_off_until_ns);
  auto again = [this, vm = node.vm, talk, boot_id = node.boot_id] {
    Node* same = find(vm);
    if (same && same->talk == talk && same->boot_id == boot_id) say(*same);
  };
  clock_.at(std::max(now_ns + kSyncGiveUpNs, sent_ns + kSecond), again);
  if (chance(loses_messages)) return;
  clock_.at(sent_ns, [this, vm = node.vm, talk, request] { send(vm, talk, request); });
}

void SimNodes::send(const std::string& vm, int64_t talk, const node::SyncRequest& request) {
  const Node* node = find(vm);
  if (!node || node->boot_id != request.boot_id || node->talk != talk) return;
  link_.sync(vm, node->token, request, kPollNs, [this, vm, talk](const Result<node::SyncReply>& reply) {
    if (chance(loses_messages)) return;
    clock_.after(between(kMillisecond, 30 * kMillisecond),
                 [this, vm, talk, reply] { hear(vm, talk, reply); });
  });
}

void SimNodes::hear(const std::string& vm, int64_t talk, const Result<node::SyncReply>& reply) {
  Node* node = find(vm);
  if (!node || node->talk != talk || clock_.unix_ns() < node->cut_off_until_ns) return;
  if (reply) return obey(*node, *reply), say(*node);
  const Code code = reply.error().code;
  if (code == Code::kPermissionDenied || code == Code::kUnauthenticated) {
    node->dismissed = true;
    node->ranks.clear();
    return;
  }
  clock_.after(kRetryNs, [this, vm, talk] {
    Node* same = find(vm);
    if (same && same->talk == talk) say(*same);
  });
}

void SimNodes::obey(Node& node, const node::SyncReply& reply) {
  node.have_generation = reply.generation;
  std::set<std::string> wanted;
  for (const node::Task& task : reply.tasks) wanted.insert(task.id.text());
  std::vector<std::string> unwanted;
  for (const auto& [id, rank] : node.ranks) {
    if (!wanted.count(id)) unwanted.push_back(id);
  }
  for (const std::string& id : unwanted) stop(node, id);
  for (const node::Task& task : reply.tasks) {
    if (!node.ranks.count(task.id.text())) start(node, task);
  }
}

void SimNodes::stop(Node& node, const std::string& id) {
  Rank& rank = node.ranks.at(id);
  if (!rank.alive) {
    node.ranks.erase(id);
    return;
  }
  if (std::exchange(rank.stopping, true)) return;
  clock_.after(between(50 * kMillisecond, 3 * kSecond), [this, vm = node.vm, boot_id = node.boot_id, id] {
    Node* same = find(vm);
    if (!same || same->boot_id != boot_id || same->dismissed) return;
    same->ranks.erase(id);
    say(*same);
  });
}

void SimNodes::start(Node& node, const node::Task& task) {
  const std::string id = task.id.text();
  for (const auto& [other, rank] : node.ranks) {
    const bool shares = rank.alive && std::any_of(task.gpus.begin(), task.gpus.end(), [&](int gpu) {
                          return std::count(rank.gpus.begin(), rank.gpus.end(), gpu) > 0;
                        });
    if (shares && on_conflict) {
      on_conflict(fmt::format("node {}: task {} starts on a GPU on which {} runs", node.vm, id, other));
    }
  }
  Rank& rank = node.ranks[id];
  rank.report.id = task.id, rank.gpus = task.gpus;
  rank.alive = !starts_half_gangs || task.id.rank % 2 == 0;
  if (rank.alive) started_[{task.id.job, task.id.attempt}].insert(task.id.rank);
  const int64_t milliseconds = task.argv.size() > 1 ? std::strtoll(task.argv[1].c_str(), nullptr, 10) : 0;
  const bool well = task.argv.size() < 3 || task.argv[2] == "well";
  const int64_t up_ns = between(100 * kMillisecond, 2 * kSecond);
  clock_.after(up_ns, [this, vm = node.vm, boot_id = node.boot_id, id] {
    change(boot_id, vm, id, [](Node&, Rank& r) { r.report.state = TaskState::kRunning; });
  });
  if (task.ready_url) {  // it serves until it is stopped
    clock_.after(up_ns + between(kSecond, 10 * kSecond), [this, vm = node.vm, boot_id = node.boot_id, id] {
      change(boot_id, vm, id, [](Node&, Rank& r) { r.report.state = TaskState::kReady; });
    });
    return;
  }
  clock_.after(up_ns + milliseconds * kMillisecond, [this, vm = node.vm, boot_id = node.boot_id, id, well] {
    change(boot_id, vm, id, [well](Node&, Rank& r) {
      r.alive = false;
      r.report.state = TaskState::kExited, r.report.exit_code = well ? 0 : 1;
      r.report.reason = well ? "exited" : "exited with 1";
    });
  });
}

/// Where the rank still is, has not ended and is not being stopped.
void SimNodes::change(const std::string& boot_id, const std::string& vm, const std::string& task,
                      const std::function<void(Node&, Rank&)>& change) {
  Node* node = find(vm);
  if (!node || node->boot_id != boot_id || node->dismissed) return;
  const auto rank = node->ranks.find(task);
  if (rank == node->ranks.end() || ended(rank->second.report)) return;
  change(*node, rank->second);
  if (!rank->second.stopping) say(*node);
}

}  // namespace th::sim
