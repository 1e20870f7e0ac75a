// Parts of GPUs, for small jobs that share one.

#include <algorithm>
#include <map>

#include "control/jobs.h"
#include "control/placing.h"

namespace th::control {
namespace {

using ledger::Job;
using ledger::Slice;

}  // namespace

/// Starts jobs that want a part of a GPU on GPUs of which others have parts, where least is left over.
/// Returns who is still to be placed: at most one of them, so that the next one can share the GPU that it
/// gets.
std::vector<std::string> Jobs::place_parts(const Slice& slice, const std::vector<std::string>& queue) {
  std::map<std::pair<std::string, int64_t>, int64_t> left;  // (VM, GPU) that is shared → thousandths
  for (const auto& [id, active] : core_.active_jobs()) {
    const Job& job = *active;
    const int64_t milli = job.slice == slice.terms.slice ? spec_of(job).gpu_milli : 1000;
    if (milli == 1000 || (!job.attempt_open && !gangs_.count(id)) || job.ranks.empty()) continue;
    const ledger::RankPlace& place = job.ranks[0].place;
    if (!place.gpus.empty()) left.try_emplace({place.vm, place.gpus[0]}, 1000).first->second -= milli;
  }
  std::vector<std::string> rest;
  bool one_waits = false;
  for (const std::string& id : queue) {
    const Job& job = core_.state().jobs.at(id);
    const request::JobSpec& spec = spec_of(job);
    if (spec.gpu_milli == 1000) {
      rest.push_back(id);
      continue;
    }
    auto best = left.end();
    for (auto it = left.begin(); it != left.end(); ++it) {
      const ledger::Vm& vm = core_.state().vms.at(it->first.first);
      const auto host = core_.fleet().find_host(vm.host);
      const bool there = vm.state == ledger::VmState::kReady && !core_.is_leaving(vm.id) && host;
      const bool fits =
          it->second >= spec.gpu_milli && there && allows_host(core_.fleet(), spec, *host, vm.id);
      if (fits && (best == left.end() || it->second < best->second)) best = it;
    }
    if (best != left.end()) {
      best->second -= spec.gpu_milli;
      start_ranks(job, slice.terms.slice, {{best->first.first, {best->first.second}}}, spec.gpu_milli);
    } else if (!std::exchange(one_waits, true)) {
      rest.push_back(id);
    } else {
      note(id, {"busy", "it waits for a GPU of which a part is free, behind another job that does", "", 0});
    }
  }
  look_again_ = look_again_ || one_waits;
  return rest;
}

}  // namespace th::control
