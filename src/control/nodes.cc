#include "control/nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/end_vm.h"

namespace th::control {
namespace {

using ledger::Vm;
using ledger::VmState;

constexpr int64_t kSuspectNs = 5 * kSecond;
constexpr int64_t kSilentNs = 15 * kSecond;

bool is_up(const Vm& vm) {
  return vm.state == VmState::kUp || vm.state == VmState::kReady || vm.state == VmState::kKept;
}

Status check_wanted(const ledger::State& state, const std::string& name) {
  const auto vm = state.vms.find(name);
  if (vm == state.vms.end()) return fail(Code::kPermissionDenied, "VM '" + name + "' is not known here");
  if (vm->second.state == VmState::kDown || vm->second.state == VmState::kDeleted) {
    return fail(Code::kPermissionDenied, "VM '" + name + "' is no longer wanted");
  }
  return {};
}

std::string failed_checks(const node::Validation& validation) {
  std::vector<std::string> out;
  for (const node::Check& check : validation.checks) {
    if (!check.ok) out.push_back(fmt::format("{} is {}, want {}", check.name, check.value, check.want));
  }
  return "it failed its validation: " + join(out, "; ");
}

}  // namespace

Result<std::string> Nodes::identify(const std::string& name, const std::string& token) {
  // A node that is told 401 or 403 ends itself and its ranks. Only who knows its token may say that: another
  // controller on the same port may not.
  const std::string sha256 = sha256_hex(token);
  const auto& vms = core_.state().vms;
  const auto is_its = [&](const std::string& id) {
    const auto vm = vms.find(id);
    return vm != vms.end() && !vm->second.token_sha256.empty() &&
           equal_secret(sha256, vm->second.token_sha256);
  };
  std::string id = name;
  if (const auto known = cloud_names_.find(name); known != cloud_names_.end()) id = known->second;
  if (!is_its(id) && vms.count(name) == 0) {
    const auto found = std::ranges::find_if(vms, [&](const auto& vm) { return is_its(vm.first); });
    if (found != vms.end()) id = cloud_names_[name] = found->first;
  }
  if (!is_its(id)) {
    return fail(Code::kUnavailable,
                "VM '" + name + "' with this token is not known here, or is still being made; try again");
  }
  TH_RETURN_IF_ERROR(check_wanted(core_.state(), id));
  return id;
}

void Nodes::take(const std::string& name, const node::SyncRequest& request) {
  heard(name);
  take_validation(core_.state().vms.at(name), request);
  core_.node_launcher().on_report(name, request);
}

void Nodes::sync(const std::string& name, const node::SyncRequest& request, int64_t wait_ns,
                 http::Responder responder) {
  take(name, request);
  // Metrics are acknowledged at once, so that the node does not hold them longer than it must.
  const bool at_once = !request.metrics.empty();
  const int64_t deadline_ns = core_.monotonic_ns() + (at_once ? 0 : wait_ns);
  if (auto old = waiting_.find(name); old != waiting_.end()) {
    old->second.deadline_ns = 0;
    const http::Responder earlier = old->second.responder;
    core_.after_commit([this, name, earlier] { earlier.send(node::to_json(reply(name))); });
    waiting_.erase(old);
  }
  waiting_.emplace(name, Waiting{std::move(responder), request.have_generation, deadline_ns});
}

void Nodes::take_validation(const Vm& vm, const node::SyncRequest& request) {
  if (!request.validation) return;
  if (!request.validation->ok) {
    slices_.node_down(vm.id, failed_checks(*request.validation));
  } else if (vm.state == VmState::kUp || vm.boot_id != request.boot_id) {
    // One that was kept and started anew is not what it was.
    if (vm.state == VmState::kKept) return slices_.node_down(vm.id, "it was started anew while it was kept");
    checks_.dialled_in(vm, request.boot_id, request.address);
  }
}

void Nodes::answer_waiting() {
  std::erase_if(waiting_, [&](auto& item) {
    auto& [name, waiting] = item;
    const bool changed =
        core_.node_launcher().generation(name) != waiting.have_generation || execs_.has_news(name);
    if (Status known = check_wanted(core_.state(), name); !known) {
      waiting.responder.fail(known.error());
      return true;
    }
    if (!changed && core_.monotonic_ns() < waiting.deadline_ns) return false;
    waiting.responder.send(node::to_json(reply(name)));
    return true;
  });
}

node::SyncReply Nodes::reply(const std::string& vm) {
  node::SyncReply out = core_.node_launcher().desired(vm);
  out.sessions = execs_.tell(vm);
  return out;
}

Result<int64_t> Nodes::log(const std::string& vm, const node::TaskId& task, int64_t offset,
                           std::string_view bytes) {
  const auto job = core_.state().jobs.find(task.job);
  const bool its = job != core_.state().jobs.end() && job->second.slice == core_.state().vms.at(vm).slice &&
                   task.attempt <= job->second.attempt;
  if (!its)
    return fail(Code::kPermissionDenied, "task '" + task.text() + "' does not run on VM '" + vm + "'");
  if (offset < 0) return fail(Code::kInvalidArgument, "offset: want an integer >= 0");
  return output_.append_log(task, offset, bytes);
}

void Nodes::step() {
  const int64_t now_ns = core_.monotonic_ns();
  const int64_t pause_ns = last_step_ns_ == 0 ? 0 : now_ns - last_step_ns_;
  last_step_ns_ = now_ns;
  look_for_silent(pause_ns > 2 * kSecond ? pause_ns : 0);
  if (!asking_ && now_ns >= next_ask_ns_) ask_provider();
}

/// `pause_ns`: how long this program itself did not run; nobody could be heard in that time.
void Nodes::look_for_silent(int64_t pause_ns) {
  const int64_t now_ns = core_.monotonic_ns(), first_word_ns = core_.provider().patience().first_word_ns;
  for (const std::string& name : watched()) {
    const Vm& vm = core_.state().vms.at(name);
    if (!is_up(vm) || slices_.removing(name)) {
      seen_.erase(name);
      continue;
    }
    Seen& seen = seen_[name];
    if (seen.since_ns == 0) seen.since_ns = now_ns;
    seen.since_ns += pause_ns;
    if (seen.heard_ns) seen.heard_ns += pause_ns;
    const bool silent =
        seen.heard_ns ? now_ns - seen.heard_ns > kSilentNs : now_ns - seen.since_ns > first_word_ns;
    if (silent) {
      slices_.node_down(name, fmt::format("it was not heard of for {}",
                                          format_duration(seen.heard_ns ? kSilentNs : first_word_ns)));
    }
  }
}

/// VMs of slices, and those that are kept.
std::vector<std::string> Nodes::watched() const {
  std::vector<std::string> out(core_.state().kept_vms.begin(), core_.state().kept_vms.end());
  for (const std::string& id : core_.active_slices()) {
    const auto& vms = core_.state().slices.at(id).vms;
    out.insert(out.end(), vms.begin(), vms.end());
  }
  return out;
}

void Nodes::ask_provider() {
  asking_ = true;
  const int64_t asked_ns = core_.monotonic_ns();
  core_.after_commit([this, asked_ns] {
    core_.offload([this, asked_ns]() -> std::function<void()> {
      auto there = core_.provider().list(core_.provider().patience().list_ns);
      return [this, asked_ns, there] {
        asking_ = false;
        next_ask_ns_ = core_.monotonic_ns() + core_.provider().patience().list_every_ns;
        if (there) {
          compare(*there, asked_ns);
        } else {
          log_warn("the provider cannot say which VMs exist: {}", there.error().message);
        }
      };
    });
  });
}

void Nodes::compare(const std::vector<cloud::VmState>& there, int64_t asked_ns) {
  std::map<std::string, const cloud::VmState*> by_name;
  for (const cloud::VmState& vm : there) {
    by_name[vm.vm] = &vm;
    const auto known = core_.state().vms.find(vm.vm);
    const bool orphan = known == core_.state().vms.end() || known->second.state == VmState::kDeleted;
    if (orphan) remove_orphan(vm.vm);
  }
  for (const std::string& name : watched()) {
    const Vm& vm = core_.state().vms.at(name);
    const auto seen = seen_.find(name);
    // Only what was up before the question was asked can be judged by its answer.
    if (!is_up(vm) || slices_.removing(name) || seen == seen_.end() || seen->second.since_ns >= asked_ns)
      continue;
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      slices_.node_down(name, "its VM does not exist any more");
    } else if (found->second->phase == cloud::VmPhase::kDead) {
      slices_.node_down(name, found->second->detail.empty() ? "its VM is dead" : found->second->detail);
    }
  }
}

void Nodes::remove_orphan(const std::string& vm) {
  if (orphans_.count(vm)) return;
  orphans_[vm] = true;
  log_warn("VM {} belongs to no slice; deleting it", vm);
  end_vm(core_, vm, [this, vm](const Status& removed) {
    orphans_.erase(vm);
    if (!removed) log_warn("VM {}: could not be deleted: {}", vm, removed.error().message);
  });
}

int64_t Nodes::silent_ns(const std::string& vm) const {
  const auto seen = seen_.find(vm);
  return seen == seen_.end() || seen->second.heard_ns == 0 ? -1
                                                           : core_.monotonic_ns() - seen->second.heard_ns;
}

bool Nodes::suspect(const std::string& vm) const { return silent_ns(vm) > kSuspectNs; }

}  // namespace th::control
